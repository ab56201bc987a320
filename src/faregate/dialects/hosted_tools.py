"""Tools of a response that run at the provider: what they may cost at most, and what an answer says they did cost.

A tool that the caller runs itself costs nothing but the tokens of its description. One that the provider runs is billed
by the call or by the session, and every call has the model read everything again: so a request that offers one is
bounded by ``max_tool_calls``, which is put there where the caller left it out. What has no such bound is refused by
name. (OpenAI, "Pricing: built-in tools" and "API reference: Responses", ``tools`` and ``max_tool_calls``.)
"""

from typing import Any, Final

import msgspec

from faregate.core.usage import COUNT_MAX, Measure, measures
from faregate.dialects.attachments import Attached
from faregate.dialects.jsonbody import DECODING_ERRORS, kind_of
from faregate.dialects.quoting import echo, expected, unbounded
from faregate.dialects.responses_shapes import AnsweredTool, HostedTool, OutputItem, Response, ToolContainer
from faregate.errors import Problem

#: The most tools of a request, those in groups included; OpenAI takes 128.
TOOLS_MAX: Final = 1024
#: A group of tools holds tools and no further groups.
_NAMESPACE: Final = "namespace"

#: Run by the caller; only the JSON of their description is read by the model.
_DESCRIBED: Final = frozenset(("function", "custom"))
#: Run by the caller, too, but described by the provider, in words that are not in the body.
_BUILT_IN: Final = frozenset(("local_shell", "apply_patch", "computer", "computer_use_preview", "computer-preview"))

#: What the preview of web search costs is another price than that of the tool itself.
PREVIEW: Final = "preview"

#: Gigabytes of a container by its ``memory_limit``. A session costs in proportion to them, so it is counted in sessions
#: of one gigabyte.
GIGABYTES: Final = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}

#: Image models whose largest image is documented: 1024 × 1536 in high quality, 6,240 tokens, and 100 more for each
#: partial image (OpenAI, "Image generation": cost and latency).
_IMAGE_MODELS: Final = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5")
IMAGE_TOKENS_MAX: Final = 6_240
_PARTIAL_IMAGES_MAX: Final = 3
_PARTIAL_IMAGE_TOKENS: Final = 100
#: What such a model reads for one image: a prompt of 32,000 characters, and 16 images of at most 6,240 + 65 + 4 × 129
#: tokens at high fidelity (OpenAI, "API reference: Images", and "Images and vision", calculating costs).
IMAGE_PROMPT_TOKENS_MAX: Final = 32_000
IMAGE_INPUT_TOKENS_MAX: Final = 16 * (6_240 + 65 + 4 * 129)
#: Variants of tokens of an image model: its name, and its name with this for the text that it reads.
TEXT_OF: Final = " text"

_tools = msgspec.json.Decoder(list[HostedTool]).decode


class Offered:
    """What the tools of one request may use."""

    __slots__ = ("built_in", "hosted", "tools", "units")

    def __init__(self) -> None:
        #: Some tool is run by the provider.
        self.hosted = False
        #: Some tool is described by the provider.
        self.built_in = False
        self.tools = 0
        #: The most that one tool call may use of each unit and variant.
        self.units: dict[tuple[str, str], int] = {}

    def at_most(self, calls: int) -> tuple[Measure, ...]:
        """The most that so many tool calls use: any of them may be of the dearest kind."""
        return measures([Measure(unit, variant, each * calls) for (unit, variant), each in self.units.items()])

    def may_use(self, unit: str, each: int = 1, variant: str = "") -> None:
        """One call of a hosted tool may use ``each`` of a unit."""
        self.hosted = True
        self.units[unit, variant] = max(each, self.units.get((unit, variant), 0))


def take(value: msgspec.Raw, path: str, offered: Offered, attached: Attached, inside: bool = False) -> Problem | None:
    """Take a list of tools; ``inside`` says that it is that of a group."""
    if not len(value) or kind_of(value) == "null":
        return None
    if kind_of(value) != "an array":
        return expected("field_type", path, "a list of tools", kind_of(value))
    try:
        tools = _tools(value)
    except DECODING_ERRORS:
        return expected("field_type", path, "a list of tools", "something else")
    offered.tools += len(tools)
    if offered.tools > TOOLS_MAX:
        return expected("field_range", path, f"at most {TOOLS_MAX} tools", "more")
    for index, tool in enumerate(tools):
        problem = _take_one(tool, f"{path}[{index}]", offered, attached, inside)
        if problem is not None:
            return problem
    return None


def _take_one(tool: HostedTool, path: str, offered: Offered, attached: Attached, inside: bool) -> Problem | None:
    kind = tool.type
    if kind is None:
        # It is for the provider to refuse.
        return None
    if not isinstance(kind, str):
        return expected("field_type", f"{path}.type", "a string", "something else")
    if kind in _DESCRIBED:
        return None
    if kind in _BUILT_IN:
        offered.built_in = True
        return None
    if kind == _NAMESPACE and not inside:
        return take(tool.tools, f"{path}.tools", offered, attached, inside=True)
    if kind == "tool_search" and tool.execution == "client":
        offered.built_in = True
        return None
    if kind.startswith("web_search"):
        offered.may_use("web_searches", variant=PREVIEW if kind.startswith("web_search_preview") else "")
        return None
    if kind == "file_search":
        offered.may_use("file_searches")
        return _take_ids(tool.vector_store_ids, f"{path}.vector_store_ids", attached)
    if kind == "code_interpreter":
        return _take_container(tool.container, f"{path}.container", "auto", offered, attached)
    if kind == "shell":
        return _take_shell(tool, path, offered, attached)
    if kind == "image_generation":
        return _take_image_generation(tool, path, offered)
    return unbounded(f"{path}.type", f"the tool {echo(kind)}", "leave it out")


def _take_ids(ids: Any, path: str, attached: Attached) -> Problem | None:
    if ids is None:
        return None
    if not isinstance(ids, list):
        return expected("field_type", path, "a list of ids", "something else")
    for index, id in enumerate(ids):
        problem = attached.named(id, f"{path}[{index}]")
        if problem is not None:
            return problem
    return None


def _take_shell(tool: HostedTool, path: str, offered: Offered, attached: Attached) -> Problem | None:
    offered.built_in = True
    environment = tool.environment
    if environment is not None and environment.type == "local":
        return None
    return _take_container(environment, f"{path}.environment", "container_auto", offered, attached)


def _take_container(
    container: ToolContainer | str | None, path: str, kind: str, offered: Offered, attached: Attached
) -> Problem | None:
    if container is not None and (isinstance(container, str) or container.type not in (kind, None)):
        return unbounded(path, "a container whose size is not told", f"use one of type {kind}")
    size = gigabytes(container)
    if not size:
        return expected("field_range", f"{path}.memory_limit", "one of 1g, 4g, 16g, 64g", "something else")
    offered.may_use("code_sessions", size)
    return None if container is None else _take_ids(container.file_ids, f"{path}.file_ids", attached)


def gigabytes(container: ToolContainer | str | None) -> int:
    """The size of a container, one gigabyte where nothing is said; 0 for a size that does not exist."""
    if container is None or isinstance(container, str) or container.memory_limit is None:
        return 1
    limit = container.memory_limit
    return GIGABYTES.get(limit, 0) if isinstance(limit, str) else 0


def _take_image_generation(tool: HostedTool, path: str, offered: Offered) -> Problem | None:
    model = tool.model
    if model not in _IMAGE_MODELS:
        named = ", ".join(_IMAGE_MODELS)
        return unbounded(f"{path}.model", "images of a model whose largest is not known", f"name one of {named}")
    partial = tool.partial_images
    if partial is None:
        partial = 0
    if type(partial) is not int or not 0 <= partial <= _PARTIAL_IMAGES_MAX:
        wanted = f"a whole number from 0 to {_PARTIAL_IMAGES_MAX}"
        return expected("field_range", f"{path}.partial_images", wanted, "something else")
    if tool.input_image_mask is not None:
        return unbounded(f"{path}.input_image_mask", "a mask", "leave it out")
    offered.may_use("output_image_tokens", IMAGE_TOKENS_MAX + partial * _PARTIAL_IMAGE_TOKENS, model)
    offered.may_use("input_image_tokens", IMAGE_INPUT_TOKENS_MAX, model)
    offered.may_use("input_image_tokens", IMAGE_PROMPT_TOKENS_MAX, model + TEXT_OF)
    return None


# -- answers -----------------------------------------------------------------------------------------------------------

#: Items of an answer that cost nothing beyond their tokens.
_FREE_ITEMS: Final = frozenset(
    """
    message reasoning compaction function_call function_call_output custom_tool_call custom_tool_call_output
    computer_call computer_call_output local_shell_call local_shell_call_output shell_call_output apply_patch_call
    apply_patch_call_output mcp_list_tools mcp_call mcp_approval_request mcp_approval_response tool_search_call
    tool_search_output additional_tools program program_output
    """.split()
)


def used(response: Response) -> tuple[tuple[Measure, ...], int]:
    """What the hosted tools of an answer used, and how many of its items nobody here knows."""
    if not response.output and response.tool_usage is None:
        return (), 0
    searches = file_searches = unknown = 0
    containers: dict[str, None] = {}
    images = False
    for item in response.output:
        kind = item.type
        if kind in _FREE_ITEMS or item.status == "failed":
            continue
        if kind == "web_search_call":
            # Opening a page and looking through it are not searches.
            searches += item.action is None or item.action.type in (None, "search")
        elif kind == "file_search_call":
            file_searches += 1
        elif kind == "code_interpreter_call" or kind == "shell_call":
            ran_in = _container_of(item)
            if ran_in:
                containers[ran_in] = None
        elif kind == "image_generation_call":
            images = True
        else:
            unknown += 1
    told = response.tool_usage
    if told is not None and told.web_search is not None and told.web_search.num_requests is not None:
        # The provider's own count of what it bills.
        searches = min(max(0, told.web_search.num_requests), COUNT_MAX)
    preview = any(isinstance(tool.type, str) and tool.type.startswith("web_search_preview") for tool in response.tools)
    found = [
        Measure("web_searches", PREVIEW if preview else "", searches),
        Measure("file_searches", "", file_searches),
        Measure("code_sessions", "", len(containers) * _largest_container(response.tools)),
    ]
    if told is not None and told.image_gen is not None:
        found += _image_tokens(told.image_gen, _image_model(response.tools))
    elif images:
        # Images were made and nothing tells of how many tokens: somebody has to look.
        unknown += 1
    return measures(found), unknown


def _container_of(item: OutputItem) -> str:
    if item.type == "code_interpreter_call":
        return item.container_id or "?"
    return "" if item.environment is None else item.environment.container_id or ""


def _largest_container(tools: list[AnsweredTool]) -> int:
    sizes = [gigabytes(tool.container) for tool in tools if tool.container is not None]
    sizes += [gigabytes(tool.environment) for tool in tools if tool.environment is not None]
    return max([1, *sizes])


def _image_model(tools: list[AnsweredTool]) -> str:
    """The image model that the request named; an answer may tell its dated name."""
    for tool in tools:
        if tool.type == "image_generation" and isinstance(tool.model, str):
            named = [model for model in _IMAGE_MODELS if tool.model.startswith(model)]
            return max(named, key=len, default=_IMAGE_MODELS[0])
    return _IMAGE_MODELS[0]


def _image_tokens(told: dict[str, Any], model: str) -> list[Measure]:
    """Tokens of the image model. It does not say how much of its input was cached, so all of it is billed in full."""
    incoming, outgoing = _count(told.get("input_tokens")), _count(told.get("output_tokens"))
    details = told.get("input_tokens_details")
    text = min(incoming, _count(details.get("text_tokens"))) if isinstance(details, dict) else 0
    return [
        Measure("input_image_tokens", model, incoming - text),
        Measure("input_image_tokens", model + TEXT_OF, text),
        Measure("output_image_tokens", model, outgoing),
    ]


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= COUNT_MAX else 0
