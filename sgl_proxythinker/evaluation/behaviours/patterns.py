"""Reasoning behaviours counted by regular expressions: offline, the same each time, in English and some Chinese.

What counts is the number of different sentences in which a pattern of the behaviour is found. So a sentence that an
answer repeats in a loop counts once, and one that does the same thing twice counts once too. What stands between
quotation marks is taken for words of the picture, and is not read.

How well this does is measured on answers labelled by hand: docs/behaviours.md. Repetitions are bounded, or are tried at
one place of a sentence only, so the time grows with the length of the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sgl_proxythinker.evaluation.records import Behaviour

# "…" and “…” on one line. A closing mark that is missing leaves the rest of the line to be read.
_QUOTED = re.compile(r'"[^"\n]*"|“[^“”\n]*”')
_LIST_NUMBER = re.compile(r"^[ \t]*(\d{1,2})\.(?= )", re.MULTILINE)  # whose full stop ends no sentence
_END_OF_SENTENCE = re.compile(r"(?<=[.!?…])[*)\]]*\s+|(?<=[。！？；])|\n+")


class Pattern(NamedTuple):
    """One way in which a behaviour is worded."""

    catches: str  # an example, which the tests read
    expression: re.Pattern[str]


def count(text: str) -> dict[Behaviour, int]:
    """In how many different sentences of an answer each behaviour is found."""
    sentences = _sentences(text)
    return {
        behaviour: sum(any(pattern.expression.search(sentence) for pattern in patterns) for sentence in sentences)
        for behaviour, patterns in PATTERNS.items()
    }


def _sentences(text: str) -> list[str]:
    """Without those that came before, in lower case, and without what is quoted."""
    plain = _LIST_NUMBER.sub(r"\1)", _QUOTED.sub(" ", text.replace("’", "'")))
    return list(dict.fromkeys(" ".join(part.split()).lower() for part in _END_OF_SENTENCE.split(plain) if part.strip()))


def _pattern(catches: str, *alternatives: str) -> Pattern:
    return Pattern(catches, re.compile("|".join(alternatives)))


# What one sets out to do with a part of a problem.
_DO = (
    r"(?:find|determine|calculate|compute|measure|convert|write|identify|read|solve|express|count|get|work out"
    r"|establish|compare|combine|evaluate|simplify|set up|list|locate|figure out|look at|add|pick|classify|obtain"
    r"|derive|know)"
)
_DOING = (
    r"(?:finding|determining|calculating|computing|measuring|converting|writing|identifying|reading|solving|counting"
    r"|getting|working out|comparing|combining|simplifying|setting up|listing|locating|looking at)"
)
_WE = r"(?:i|we|you)"
_LET = (
    r"(?:let me|let's|let us|i'll|i will|we'll|we will|i should|we should|i need to|we need to|i can|we can|i have to)"
)

PATTERNS: dict[Behaviour, tuple[Pattern, ...]] = {
    Behaviour.BACKTRACKING: (
        _pattern(
            "Wait, that's not right.",
            r"\b(?:that|this|it)(?:'s| is| was| seems| looks| doesn't seem| does not seem)(?: not|n't)? "
            r"(?:right|correct|possible)\b(?<!'s right)(?<!is right)(?<!was right)(?<!'s correct)(?<!is correct)"
            r"(?<!was correct)(?<!seems right)(?<!looks right)(?<!seems correct)(?<!'s possible)(?<!is possible)",
            r"\b(?:that|this|it|which) (?:can't|cannot|can not|couldn't) be\b",
            r"\b(?:so|then|thus|therefore|hence)\b.{0,40} (?:is|was|were|must be|are) wrong\b",
            r"\bis impossible\b.{0,40}\b(?:so|my)\b",
        ),
        _pattern(
            "I misread the label.",
            r"\bi (?:have )?(?:also )?(?:misread|miscounted|misinterpreted|misunderstood|misjudged|overlooked|missed"
            r"|forgot|confused|mixed up|was wrong|made an? \w* ?(?:mistake|error))\b",
            r"\b(?:my|an earlier|the earlier) (?:mistake|error)\b",
        ),
        _pattern(
            "Scratch that.",
            r"\bscratch that\b|\bstart(?:ing)? over\b|\bon second thoughts?\b|\bor rather\b|^correction\b|^sorry\b",
            r"\bi(?:'m| am) (?:switching|changing)\b|\bi (?:take|took) (?:that|it) back\b",
            r"(?:\.\.\.|…|—|-) ?(?:no|wait)[,:.]|^(?:\W*(?:hmm|oh|ah|wait))?\W*no[,:] ",
            r"\bthe other way (?:a?round)\b|^hold on\b|^but wait\b"
            r"|^(?:wait,? )?actually\b",
        ),
        _pattern(
            "This approach doesn't work.",
            r"\b(?:approach|way|method|idea|that|this|it) (?:does not|doesn't|won't|will not|can't|cannot) "
            r"(?:work|help|lead|be used)\b",
            r"\bleads? nowhere\b|\bdead end\b|\bnot helpful\b|\bthat fails\b",
            r"\bcan't use\b|\b(?:becomes|is getting|gets) (?:messy|complicated)\b",
        ),
        _pattern(
            "Let's try another way instead.",
            r"\b(?:let me|let's|let us|i'll|we) (?:\w+ )?(?:try|use|take)\b.{0,60}\binstead\b",
            r"\btry(?:ing)? (?:a different|another) (?:approach|way|method|route|idea)\b",
        ),
        _pattern("So it is 25, not 20.", r"\d\S{0,12}, (?:and )?not \S?\d"),
        _pattern(
            "等等，我看错了。",
            r"(?<!对)不对(?!称|应)|(?:看|算|读|数|弄|搞|想)错|行不通|换一?[种个](?:方法|思路|角度)|重新(?:来|考虑|计算|分析)",
        ),
    ),
    Behaviour.VERIFICATION: (
        _pattern(
            "Let me double-check this.",
            rf"\b{_LET} (?:just |also |quickly |now )?(?:double[- ]?check|cross[- ]?check|re-?check"
            r"|check(?! ?(?:mark|box|out))|verify|confirm|make sure|be sure|recount|recalculate|re-?examine"
            r"|re-?read|reconsider|re-?verify|test)\b",
            r"(?<!want )\bto (?:be sure|make sure|verify|double[- ]?check|confirm)\b",
            r"^\W*(?:(?:double[- ]?|cross[- ]?|sanity |final |quick |as a )?check|verification|checking|verifying)"
            r"(?: this| that| with| whether| if| per| the (?:result|answer|sum)|ing)?\W*(?:[:=(]|\d|with|per|back)",
            r"\bas an? (?:rough|quick|final|further|sanity)? ?(?:test|check)\b",
        ),
        _pattern(
            "Wait, does it seem right?",
            r"\b(?:does|do|is|are|was|did|could|have|should)\b.{0,80}"
            r"\b(?:right|correct|correctly|mistake|mistakes|error|errors|sense|agree|consistent|match|fit|miss|wrong|reasonable|plausible)\b"
            r".{0,40}\?",
            r"^(?:wait|hmm|hm)\b\W+(?:is|are|does|do|did|was|could|the)\b.*\?",
            r"\bdid i (?:miss|read|count|use|forget)\b",
        ),
        _pattern(
            "Looking at the picture once more",
            r"\b(?:look|looking|count|counting|read|reading|see|checking|measure|go|going|compar\w+|trac\w+)\b"
            r".{0,40}\b(?:again|once more|once again|a second time)\b",
        ),
        _pattern(
            "Putting x = 2 into the equation gives 0.",
            r"\b(?:substitut\w+|plug\w*|put|putting|insert\w*)\b.{0,40}\b(?:back|in|into)\b.{0,40}(?:[=:]|gives?\b)",
            r"✓|✔",
        ),
        _pattern(
            "This agrees with the figure.",
            r"\b(?:which|this|that|it|they|all|both|ways|methods|results?) (?:also |indeed |both )?"
            r"(?:match(?:es)?|agrees?|confirms?|fits?|checks out|is consistent|are consistent|makes sense|is plausible"
            r"|is reasonable)\b",
            r"\bin agreement with\b|\bas it (?:should|must|has to)\b|\bas expected\b|\bis plausible\b",
            r"\bindeed\b.{0,60}=|\bstill holds\b|\bcorrect as (?:is|it)\b",
        ),
        _pattern(
            "让我检查一下。",
            r"(?:让我|我来|我们|再|来)(?:仔细)?(?:检查|验证|核对|确认|验算|检验)|验算|检验[:：]|再(?:看|数|算|读)一?[遍下次]"
            r"|对吗|正确吗|代入.{0,40}(?:成立|符合|相等|正确)",
        ),
    ),
    Behaviour.SUBGOAL_SETTING: (
        _pattern(
            "First, we need to find the radius.",
            r"^\W*(?:so |okay,? |ok,? )?"
            r"(?:first|firstly|first of all|next|second|secondly|third|then|after that|now|finally)\b"
            rf",? (?:(?:i|we|you|let's|let me|let us)\b.{{0,30}}?)?\b(?:{_DO}|{_DOING}|need)\b",
            rf"\b{_WE} (?:must |should |will |'ll )?first (?:need|have|must|{_DO})",
            rf"\b(?:need|have|want) to first {_DO}\b|\bfirst {_DO} the\b|\b{_DO} \w+ first\b",
            rf"\b{_LET} (?:first|now|begin|start|next)\b.{{0,20}}\b(?:{_DO}|{_DOING}|with)\b",
            rf"\bnow {_LET} {_DO}\b|\bthen {_LET} {_DO}\b|\b(?:and )?after that {_LET} \w+",
            rf"\b{_LET} (?:take|do|treat|handle|deal with|{_DO}) .{{1,40}}\b(?:first|afterwards)\b",
            rf"\b(?:begin|start) (?:by {_DOING}|with the)\b",
        ),
        _pattern(
            "Step 1: Find the radius.",
            rf"^\W*(?:step )?(?:\d{{1,2}}|[ivx]{{1,4}})\W+{_DO}\b",
            rf"^#+ \W*{_DO}\b|^\*\*{_DO}\b",
        ),
        _pattern(
            "Before we can compare them, we need the scale.",
            rf"^before {_WE} can\b|^before\b.{{0,40}}\bmust be\b|\bthe first (?:thing|step|task) (?:to|is)\b",
            rf"\bthe key (?:is|step|thing)\b|\bonce {_WE} (?:have|know)\b|\b{_WE} still (?:lack|need)\b",
            r"\bin (?:two|three|four|five|\d) (?:steps|stages|parts)\b|\bsub-?goals?\b",
            r"\bto (?:find|get|work out|calculate|determine|solve)\b.{0,60}"
            rf", {_WE} (?:first )?(?:need|must|have to)\b",
        ),
        _pattern(
            "首先，我们需要求出半径。",
            r"(?:首先|先|接下来|接着|然后|其次|最后|再)[，,]?(?:我们|我|来|再)?(?:需要|要|来|应该)?"
            r"(?:求|确定|计算|找|算|读|测)|^\W*第[一二三四五六]步|步骤[一二三四五\d]",
        ),
    ),
    Behaviour.BACKWARD_CHAINING: (
        _pattern(
            "Working backwards from the final value",
            r"\bwork(?:ing)? back(?:wards?)?\b|\bbackwards? from\b|\breversing\b|\bundo(?:ing)?\b|\bin reverse\b"
            r"|\bstarting from the (?:end|answer|goal|result|exit|target)\b",
        ),
        _pattern(
            "Suppose the answer is 5.",
            r"\b(?:suppose|assume|assuming)\b.{0,20}\b(?:answer|option|choice|result|true|correct|is)\b",
            r"\bif (?:the answer|option|choice|it|the \w+|this)(?: \w+)? (?:were|was)\b",
            r"\bwere (?:it|this|that) (?:true|so|right|correct)\b|\bif (?:statement )?[a-d] (?:is|was|were)\b",
        ),
        _pattern(
            "Testing each choice",
            r"\b(?:test|try|check|plug in|go through)(?:ing)? (?:the|each|all|every|these)(?: of the)? "
            r"(?:options?|choices?)\b",
            r"^\W*(?:with |for |option |choice )?\(?[a-d]\)?\b.{0,30}=.{0,40}\b(?:no|yes|works|doesn't|false|true)\b",
        ),
        _pattern(
            "For the mean to be 20 they must add up to 100.",
            r"^(?:so )?for\b.{1,60}\bto (?:be|have|hold|work|equal)\b.{1,60}\b(?:must|needs?|has to|have to|would)\b",
            r"\b(?:would|will) have to\b|\bit (?:suffices|is enough|would be enough|'s enough)\b"
            r"|\b(?:that|which|this) (?:requires|needs)\b",
            rf"\bfor (?:this|that|which),? {_WE} (?:would |'d )?(?:need|must|have to)\b",
            rf"\bto (?:get|find|know|have|reach)\b.{{1,60}}, {_WE} need\b.{{1,60}}\b(?:and )?to (?:get|find|know)\b",
        ),
        _pattern(
            "假设答案是C",
            r"(?:假设|假如|如果|若)(?:答案|选项?|选择)|[倒逆反]推|要求.{1,40}只[要需]|只[要需]要?知道",
        ),
    ),
}
