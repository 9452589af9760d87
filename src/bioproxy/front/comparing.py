"""A request beside an earlier one that its client names: what changed since, while the engine has its grant.

It is asked before the request goes out, because the answer's first event may have to tell it. That costs a comparison,
and if something changed two questions to the engine's tokenizer, which it answers beside its work. Only requests that
ask for it pay for it.
"""

from __future__ import annotations

import asyncio
import logging

from bioproxy.doctor.compare import compare
from bioproxy.doctor.doctor import Case, Doctor, prompt_of, shapes_of
from bioproxy.doctor.exact import shared_tokens
from bioproxy.errors import BioproxyError, in_words
from bioproxy.front.caching.diagnosis import ALIKE, Compared
from bioproxy.front.ways import apart

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds that a client waits for the exact place


async def compared(doctor: Doctor, case: Case, identity: str) -> Compared | None:
    """The request of `case` beside the one that was answered under this id; None if its group has none there."""
    kept = doctor.find(case.want.group, identity)
    if kept is None:
        return None
    earlier, later = kept.prompt, prompt_of(case)
    difference = await apart(case.record.bytes_in, compare, earlier, later, shapes=shapes_of(case.keeper))
    facts, exact = case.keeper.decisions.facts, None
    tells = facts is not None and facts.capabilities.tokenize and facts.capabilities.apply_template
    if tells and difference.cause not in ALIKE:
        try:
            async with asyncio.timeout(PATIENCE):
                exact = await shared_tokens(case.keeper.template.engine, earlier, later)
        except (BioproxyError, TimeoutError) as error:
            log.debug("what two prompts share is not known to the token: %s", in_words(error))
    return Compared(difference=difference, earlier=earlier, later=later, exact=exact)
