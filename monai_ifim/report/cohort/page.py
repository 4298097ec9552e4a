"""index.html of a run: all cases with their pictures, distributions, outliers, failures and settings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from monai_ifim.display import numbers
from monai_ifim.display.saturation import SATURATED
from monai_ifim.display.vocabulary import COMPONENTS_KEPT, CONFIDENCE, DECOMPOSED, GRID, HEAD, METHOD, TOTAL_SENSITIVITY, WEIGHTS
from monai_ifim.io.atomic import write_bytes
from monai_ifim.io.case_files import PAGES
from monai_ifim.report.cohort import tables
from monai_ifim.report.cohort.cards import CaseCard, case_cards
from monai_ifim.report.cohort.case_pages import write_case_pages
from monai_ifim.report.cohort.figures import distribution_picture
from monai_ifim.report.cohort.gallery import gallery_records
from monai_ifim.report.cohort.glossary import distinct, glossary
from monai_ifim.report.cohort.listing import CASES_SHOWN, CaseList, all_cases, list_cases, listed_records
from monai_ifim.report.cohort.pictures import CasePictures, choose_pictures
from monai_ifim.report.cohort.records import MOST_GROUPS, Cohort, read_cohort
from monai_ifim.report.cohort.render import render_cohort
from monai_ifim.report.cohort.tables import named_cases
from monai_ifim.report.pages.blocks import Block, Definitions, Fold, Page, Paragraph, Section, Table
from monai_ifim.report.pages.texts import flat_settings
from monai_ifim.run.cohort import LARGEST_Z, SMALLEST_COHORT, SMALLEST_GROUP
from monai_ifim.run.run_record import record_pages
from monai_ifim.run.table import SEAL
from monai_ifim.run.unread_files import sentence

__all__ = ["write_cohort"]

QUESTION = "How strongly, and in how many directions, can small changes of each image move the classifier's answer?"
STATUSES = {"done": "done", "kept": "kept from an earlier run", "failed": "failed"}
OWN_SECTIONS = ("bundle", "versions", "cases", "written", "unread", "profile", SEAL)  # of run.json; others are listed as Settings
FILES = ("cases.csv", "cases.parquet", "run.json")
PAGE = "index.html"


def write_cohort(output: Path) -> Path:
    """Write OUT/index.html from OUT/cases.parquet, OUT/run.json and OUT/CASE/CASE_planes.npz; return its path.

    The page is one self-contained file, written atomically, with the same bytes for the same records.
    Cases that would make it too heavy get pages of their own, in OUT/pages, and a thumbnail on it. run.json gets all hashes.
    Missing pictures and a missing run.json are mentioned on it. Raises InputError if cases.parquet is missing, or if one of the
    records cannot be read.
    """
    output, began = Path(output), time.perf_counter()
    cohort = read_cohort(output)
    pictures = choose_pictures(output, cohort)
    listed = list_cases(cohort, pictures)
    cards = case_cards(output, cohort, listed, pictures)
    by_name = dict(zip(cohort.cases["case"], cards, strict=True))
    thumbnails = {name: grid.thumbnail for name, grid in pictures.grids.items()}
    of_pages, written = write_case_pages(output, by_name, pictures.beside)
    thumbnails |= of_pages
    text = render_cohort(
        page=_page(cohort, listed).numbered(),
        cards=cards,
        still=_still(cohort, cards),
        records=listed_records(listed) | gallery_records(listed, cards, thumbnails),
        pictures=_pictures_said(pictures) if len(cohort.made) else "",
    )
    path = output / PAGE
    sha256 = write_bytes(path, text.encode("utf-8", "backslashreplace"), root=output)  # JSON may hold half of a character
    record_pages(output, {PAGE: sha256, **written}, time.perf_counter() - began)
    return path


def _still(cohort: Cohort, cards: Sequence[CaseCard]) -> frozenset[int]:
    """Indices of the cases whose cards can be read without JavaScript."""
    named = named_cases(cohort)
    names = cohort.cases["case"]
    found = {i for i, (card, name) in enumerate(zip(cards, names, strict=True)) if card.pictures is not None or name in named}
    return frozenset(found | set(range(min(CASES_SHOWN, len(cards)))))


def _pictures_said(pictures: CasePictures) -> str:
    """How many cases have pictures on the page, and why others have none; empty if all have."""
    shown, beside, absent = len(pictures.grids), len(pictures.beside), len(pictures.left_out) + len(pictures.unreadable)
    if not shown + beside + absent:
        return "No case of this run has pictures: an earlier version made it, or the files are not beside this page."
    if not absent + beside:
        return ""
    if not absent:
        return (
            f"{_number(shown)} open here, outliers first; {_number(beside)} have pages of their own in the folder {PAGES}, which "
            "belongs to this page: copy or send both."
        )
    return (
        f"Pictures of {_number(shown)} are on this page, outliers first; those of {_number(absent)} are not, to keep the page "
        "small (see the column \N{LEFT DOUBLE QUOTATION MARK}pictures\N{RIGHT DOUBLE QUOTATION MARK}). Their files are linked."
    )


def _page(cohort: Cohort, listed: CaseList) -> Page:
    return Page(
        title=_title(cohort),
        question=QUESTION,
        answers=_answers(cohort),
        sections=(
            Section("Cases", "cases", tuple(_shown(all_cases(listed), "The run had no case."))),
            *([] if len(cohort.made) == 1 else [_distributions(cohort)]),
            _outliers(cohort),
            _failures(cohort),
            _making(cohort),
            glossary(cohort),
        ),
    )


def _title(cohort: Cohort) -> str:
    bundle = cohort.run.get("bundle")
    known = bundle if isinstance(bundle, dict) else {}
    name = " ".join(str(known[part]) for part in ("name", "version") if known.get(part))
    return f"{name}: {_number(len(cohort.cases))}" if name else f"iFIM of {_number(len(cohort.cases))}"


def _answers(cohort: Cohort) -> tuple[str, ...]:
    """Number of cases by status, and number of outliers."""
    counts = Counter(cohort.cases["status"])
    if not len(cohort.cases):
        return ("The run had no case.",)
    names = {**STATUSES, **{status: status for status in sorted(counts) if status not in STATUSES}}
    text = ", ".join(f"{numbers.count(counts.get(status, 0))} {words}" for status, words in names.items())
    if not len(cohort.made):
        return (f"{text}.", "No case gave a result. The reasons are below.")
    found = cohort.outliers
    far = found["case"][found["kind"] != "vanishing"].nunique()
    still = found["case"][found["kind"] == "vanishing"].nunique()
    verb = "stands" if far == 1 else "stand"
    saturated = int((cohort.made["saturated"] == "yes").sum())
    said = [f"{_number(saturated)} {SATURATED}. The maps are drawn in grey."] if saturated else []
    return (f"{text}.", *said, f"{_number(far)} {verb} out; {_number(still)} without sensitivity.", *_intended_use(cohort))


def _intended_use(cohort: Cohort) -> tuple[str, ...]:
    """What the bundle is intended for, as its metadata state it; empty where they do not."""
    bundle = cohort.run.get("bundle")
    stated = bundle.get("intended_use") if isinstance(bundle, dict) else None
    text = stated.get("text") if isinstance(stated, dict) else None
    return (f"Intended use of the bundle: {text}",) if isinstance(text, str) else ()


def _distributions(cohort: Cohort) -> Section:
    blocks: list[Block] = []
    quantities, groups = cohort.quantities(), cohort.groups()
    if not quantities:
        blocks.append(Paragraph("No case gave a result: there is nothing to show."))
    else:
        blocks += [distribution_picture(cohort), tables.quantiles(groups[:1], quantities)]
        if len(groups) > 1:
            blocks.append(Fold("The same by answer", (tables.quantiles(groups[1:], quantities),)))
        if len(groups) > MOST_GROUPS:
            blocks.append(Paragraph(f"At most {MOST_GROUPS} rows are shown; the rarest answers share the last."))
    return Section("Distributions", "distributions", tuple(blocks))


def _outliers(cohort: Cohort) -> Section:
    blocks: list[Block] = [Paragraph(text) for text in _rules(cohort)]
    blocks += _shown(tables.outliers(cohort), "No case lies far from the others by this rule.")
    blocks += _shown(tables.vanishing(cohort), "No case is without sensitivity.")
    blocks += _shown(tables.least_confident(cohort), "No case has a confidence.")
    return Section("Cases that stand out", "outliers", tuple(blocks))


def _rules(cohort: Cohort) -> tuple[str, ...]:
    """The rules for outliers, in words."""
    rule = (
        f"Far from the others: a robust z-score beyond \N{PLUS-MINUS SIGN}{numbers.as_given(LARGEST_Z)} of the "
        f"{COMPONENTS_KEPT.label} or of the logarithm of the {TOTAL_SENSITIVITY.label}, or below {numbers.as_given(-LARGEST_Z)} "
        f"of the log-odds of the {CONFIDENCE.label}. z is the distance from the median, divided by 1.4826 times the median "
        "absolute deviation. If that is 0 (more than half of the values are equal), it is divided by 1.2533 times the "
        "mean absolute deviation. A case is compared with the cases of its "
        f"answer if these are {SMALLEST_GROUP} or more, otherwise with all cases, and not at all if those are fewer "
        f"than {SMALLEST_COHORT}. Numbers of components less than two from the median "
        f"never stand out, nor does a {TOTAL_SENSITIVITY.label} within 0.35 % of it."
    )
    chance = (
        "Chance: among normally distributed values about 1 in 150 of 20, and 1 in 1300 of 200, lie that far out. An outlier is a "
        "case to look at, not an error."
    )
    still = (
        f"Without sensitivity: the {TOTAL_SENSITIVITY.label} is 0, not finite, or below 10\N{SUPERSCRIPT MINUS}¹² times the "
        "median of all positive ones, or the answer is saturated: a change as large as the image's own contrast would cost less "
        "than a millionth of a nat. Hardly any small change moves such an answer, and the directions found there mean little."
    )
    few = f"Only {_number(len(cohort.made))} gave a result: too few to find outliers."
    return (rule, chance, still, *([few] if 0 < len(cohort.made) < SMALLEST_COHORT else []))


def _failures(cohort: Cohort) -> Section:
    unread = cohort.run.get("unread")
    said = sentence(unread) if isinstance(unread, dict) and all(isinstance(number, int) for number in unread.values()) else ""
    return Section(
        "Failures", "failures", (*_shown(tables.failures(cohort), "No case failed."), *([Paragraph(said)] if said else []))
    )


def _shown(table: Table, otherwise: str) -> list[Block]:
    return [table] if table.rows else [Paragraph(otherwise)]


def _making(cohort: Cohort) -> Section:
    run = cohort.run
    blocks: list[Block] = []
    if not run:
        blocks.append(Paragraph("run.json is missing. The sidecar of each case holds its settings."))
    if isinstance(run.get("bundle"), dict):
        bundle = {name: value for name, value in run["bundle"].items() if name != "files"}
        blocks += [Paragraph("Bundle:"), Definitions(tuple(flat_settings(bundle)))]
    facts = [(name, distinct(cohort.made[column])) for column, name in _FACTS.items()]
    if found := tuple((name, text) for name, text in facts if text):
        blocks += [Paragraph("From the records of the cases:"), Definitions(found)]
    settings = {name: value for name, value in run.items() if name not in OWN_SECTIONS}
    for title, content in (("Settings", settings), ("Versions", run.get("versions"))):
        if isinstance(content, dict) and content:
            blocks += [Paragraph(f"{title}:"), Definitions(tuple(flat_settings(content)))]
    links = Markup(", ").join(Markup('<a href="./{}">{}</a>').format(name, name) for name in FILES if run or name != "run.json")
    read = Markup("All numbers of this page are in {}. In Python, <code>monai_ifim.read_cases(folder)</code> reads the table.")
    blocks.append(Paragraph(read.format(links)))
    return Section("How this was made", "making", tuple(blocks))


_FACTS = {
    "weights_sha256": f"{WEIGHTS.label}, SHA-256",
    "head": HEAD.label,
    "decomposed": DECOMPOSED.label,
    "method": METHOD.label,
    "space": GRID.label,
}


def _number(cases: int) -> str:
    return numbers.counted(cases, "case")
