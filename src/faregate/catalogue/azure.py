"""What Azure asks for OpenAI's models where it is not what the bundled list says.

The list has few prices of Azure's own and gives OpenAI's standard price for everything else, for any service tier and
region, without saying so. Here is what Azure's price page has besides: priority processing, batches, data zones and
regions, prices that fell later than OpenAI's, and tools.
"""

from datetime import UTC, datetime
from typing import Final

from faregate.catalogue.bundled import LeftOut, ListPrice, Stretch, list_price
from faregate.catalogue.layers import scaled

KIND: Final = "azure_openai"
REGIONAL: Final = "regional"

_PAGE: Final = "https://azure.microsoft.com/pricing/details/azure-openai"

#: Region → how much more the tokens of a deployment cost there, as a fraction. Azure's meters of gpt-5.1, gpt-5.4, o1
#: and o3 in data zones are 1.1 times the global ones, those of priority processing too (prices.azure.com, read
#: 2026-11-21; the price page as quoted at https://github.com/BerriAI/litellm/pull/38370). That of regions is recalled.
UPLIFTS: Final = {"data_zone": (11, 10), REGIONAL: (11, 10)}

#: Grounding with Bing, file search and a session of the code interpreter.
TOOLS: Final = (
    ("web_searches", "", "14", 1_000),
    ("file_searches", "", "2.5", 1_000),
    ("code_sessions", "", "0.03", 1),
)
TOOLS_SOURCE: Final = f"recalled, {_PAGE} (tools), https://www.microsoft.com/bing/apis/grounding-pricing"

#: Azure followed OpenAI's cuts of these on 2026-10-03 (https://github.com/BerriAI/litellm/issues/36192 has the meters
#: before that; the day is that on which the new ones were first seen).
_CUT_LATER: Final = ("gpt-5.6-luna", "gpt-5.6-terra", "gpt-5.6-sol", "gpt-5.6")
_CUT_NANOS: Final = int(datetime(2026, 10, 3, tzinfo=UTC).timestamp()) * 10**9
_CUT_SOURCE: Final = "Azure's meters until 2026-10-03"

#: Its price page promises half of the global standard price for a batch. Which models it takes is not in the list, so
#: those that OpenAI takes stand for them.
_BATCH: Final = (1, 2)


def price(model: str) -> ListPrice | LeftOut | None:
    """Azure's global price of a model by its name at OpenAI or in Azure's catalogue."""
    found = list_price(KIND, model)
    if not isinstance(found, ListPrice):
        return found
    if model in _CUT_LATER:
        found = _cut_later(found)
    openai = list_price("openai", model)
    if not isinstance(openai, ListPrice):
        return found
    theirs = dict(openai.service_tiers)
    tiers = []
    if "priority" in theirs:
        # Those of gpt-4.1, gpt-5.1 and gpt-5.2 were compared with Azure's meters and are OpenAI's.
        tiers.append(("priority", theirs["priority"]))
    if "batch" in theirs:
        begins = theirs["batch"][0].effective_from
        halved = (each._replace(tiers=scaled(each.tiers, *_BATCH)) for each in _from(found.stretches, begins))
        tiers.append(("batch", tuple(halved)))
    if not tiers:
        return found
    source = f"{found.source} + {_PAGE} 2026-11-21 ({' and '.join(name for name, _ in tiers)})"
    return found._replace(service_tiers=tuple(tiers), source=source)


def _cut_later(found: ListPrice) -> ListPrice:
    """The first price until Azure's cut, then the one that OpenAI has had for some time."""
    first = found.stretches[0]
    later = [each for each in found.stretches if not each.effective_to or each.effective_to > _CUT_NANOS]
    kept = (each._replace(effective_from=max(each.effective_from, _CUT_NANOS)) for each in later)
    stretches = (Stretch(0, _CUT_NANOS, first.tiers), *kept)
    return found._replace(stretches=stretches, source=f"{found.source} + {_CUT_SOURCE}")


def _from(stretches: tuple[Stretch, ...], begins: int) -> tuple[Stretch, ...]:
    later = (each for each in stretches if not each.effective_to or each.effective_to > begins)
    return tuple(each._replace(effective_from=max(each.effective_from, begins)) for each in later)
