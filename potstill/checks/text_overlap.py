"""How much of a text is in another, for the metrics beside the headline of tasks that expect a
text. None of it decides anything."""

from statistics import fmean


def overlap(answers: list[str], expected: list[str]) -> dict[str, float]:
    """ROUGE-L (the F-measure of the longest common subsequence, a mean over rows; Lin 2004), BLEU
    and chrF (of all rows at once, sacreBLEU's own), 0 to 1, on characters: Chinese has no spaces
    between words."""
    from rapidfuzz.distance import LCSseq
    from sacrebleu.metrics import BLEU, CHRF

    pairs = list(zip(answers, expected, strict=True))
    found = {
        "rouge_l": fmean(
            2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 1.0 for a, b in pairs
        ),
        "bleu": BLEU(tokenize="char").corpus_score(answers, [expected]).score / 100,
        "chrf": CHRF().corpus_score(answers, [expected]).score / 100,
    }
    return {name: round(min(value, 1.0), 4) for name, value in found.items()}
