"""Keys, payers and subscriptions as the API shows them."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from faregate.console.shapes.values import Applied, Count, Cursor, Id, Time

Mode = Literal["off", "metadata", "full"]
Word = Literal["on", "off"]


class Key(TypedDict):
    """A gateway key; its secret is in no answer but the one that made it."""

    id: Id
    name: str
    #: Where it begins, then a mask.
    key: str
    last4: str
    organization: str | None
    team: str | None
    project: str | None
    user: str | None
    product: str | None
    stage: str | None
    subscription: str | None
    role: Literal["caller", "root", "admin", "manager", "finance", "user", "auditor"]
    state: Literal["active", "disabled", "revoked"]
    stopped_by: str | None
    models: list[str] | None
    operations: list[str] | None
    paths: list[str] | None
    networks: list[str] | None
    priorities: list[str] | None
    may_set: list[str]
    content: Mode | None
    cache: Word | None
    expires_at: Time | None
    created_at: Time
    updated_at: Time
    rotated_at: Time | None
    revoked_at: Time | None
    revoked_reason: str | None
    revoked_by: str | None


class ChangedKey(Key):
    """A key that was changed."""

    applied: NotRequired[Applied]


class MadeKey(ChangedKey):
    """A key with its secret, which no later answer has."""

    secret: str


class Keys(TypedDict):
    """A page of keys."""

    data: list[Key]
    next_cursor: Cursor


class MadeKeys(TypedDict):
    """Keys that were made together, in the order in which they were sent, each with its secret."""

    data: list[MadeKey]
    applied: NotRequired[Applied]


class CheckedSecret(TypedDict):
    """Whether a secret is a key's, and whose; nothing but the first two where it is none's."""

    found: bool
    well_formed: bool
    id: NotRequired[str]
    name: NotRequired[str]
    role: NotRequired[str]
    state: NotRequired[str]
    organization: NotRequired[str | None]
    team: NotRequired[str | None]
    project: NotRequired[str | None]
    user: NotRequired[str | None]
    product: NotRequired[str | None]
    opens: NotRequired[bool]
    expires_at: NotRequired[Time | None]


class Organization(TypedDict):
    """An organization."""

    id: Id
    name: str
    state: Literal["active", "disabled"]
    title: str | None
    contact: str | None
    created_at: Time
    updated_at: Time
    applied: NotRequired[Applied]


class Payer(Organization):
    """A payer of an organization."""

    organization: str | None


class TeamPayer(Payer):
    """A payer that may be of a team."""

    team: str | None


class Project(TeamPayer):
    """A project, and whether its calls use the response cache."""

    cache: Word | None


class Stage(Payer):
    """A stage, and whether its calls use the response cache."""

    cache: Word | None


class User(TeamPayer):
    """A user, with what their keys are restricted to."""

    models: list[str] | None
    operations: list[str] | None
    paths: list[str] | None
    networks: list[str] | None
    priorities: list[str] | None


class Product(Payer):
    """A product, with what the keys of all its subscriptions are restricted to."""

    models: list[str] | None
    operations: list[str] | None
    paths: list[str] | None
    networks: list[str] | None
    priorities: list[str] | None
    expires_at: Time | None
    content: Mode | None


class Organizations(TypedDict):
    """A page of organizations."""

    data: list[Organization]
    next_cursor: Cursor


class Payers(TypedDict):
    """A page of payers."""

    data: list[Payer]
    next_cursor: Cursor


class Projects(TypedDict):
    """A page of projects."""

    data: list[Project]
    next_cursor: Cursor


class Stages(TypedDict):
    """A page of stages."""

    data: list[Stage]
    next_cursor: Cursor


class Users(TypedDict):
    """A page of users."""

    data: list[User]
    next_cursor: Cursor


class Products(TypedDict):
    """A page of products."""

    data: list[Product]
    next_cursor: Cursor


class MadePayers(TypedDict):
    """Payers that were made together, in the order in which they were sent."""

    data: list[Payer]
    applied: NotRequired[Applied]


class MadeProjects(TypedDict):
    """Projects that were made together, in the order in which they were sent."""

    data: list[Project]
    applied: NotRequired[Applied]


class MadeUsers(TypedDict):
    """Users that were made together, in the order in which they were sent."""

    data: list[User]
    applied: NotRequired[Applied]


class MadeProducts(TypedDict):
    """Products that were made together, in the order in which they were sent."""

    data: list[Product]
    applied: NotRequired[Applied]


class Subscription(TypedDict):
    """A team's or user's right to the keys of a product."""

    id: Id
    name: str
    organization: str
    product: str
    team: str | None
    user: str | None
    state: Literal["active", "suspended", "cancelled"]
    title: str | None
    contact: str | None
    created_at: Time
    updated_at: Time
    applied: NotRequired[Applied]


class Subscriptions(TypedDict):
    """A page of subscriptions."""

    data: list[Subscription]
    next_cursor: Cursor


class Lifted(TypedDict):
    """A product may go on."""

    product: str
    limit: str
    lifted: bool
    applied: NotRequired[Applied]


class Pepper(TypedDict):
    """A pepper, and how many keys hang on it; one without an id is not there any more."""

    id: str | None
    fingerprint: str | None
    newest: bool
    keys: Count


class RotatedPepper(TypedDict):
    """The pepper that is in front now, and all of them."""

    id: str
    peppers: list[str]


class RetiredPepper(TypedDict):
    """The pepper that is there no longer."""

    id: str
    retired: Literal[True]


class Peppers(TypedDict):
    """All peppers."""

    data: list[Pepper]
    next_cursor: Cursor
