"""A figure's labels and numbers as plain text, for those who hear a figure and do not see it."""

import math
import re

_SYMBOLS = {
    **{"Vert": "‖", "Delta": "Δ", "theta": "θ", "alpha": "α", "eta": "η", "mu": "μ", "pi": "π", "sigma": "σ"},
    **{"cdot": "·", "times": "×", "top": "⊤", "leq": "≤", "geq": "≥", "ast": "*", "rho": "ρ", "lambda": "λ"},
}
_STYLING = re.compile(r"\\(?:mathrm|mathit|mathbf|text|operatorname)\s*\{([^{}]*)\}")


def plain(label: str) -> str:
    """A label as matplotlib takes it, without its mathtext: `$\\Vert\\Delta W\\Vert_F$` is ‖ΔW‖_F.

    Line breaks become spaces, a single symbol in braces loses them, unknown commands keep their names.
    """
    parts = label.split("$")
    parts[1::2] = [_of_math(part) for part in parts[1::2]]
    return re.sub(r"\s+", " ", "".join(parts)).strip()


def _of_math(text: str) -> str:
    text = _STYLING.sub(r"\1", text)
    text = re.sub(r"\\[,;:! ]", "\t", text)  # a space that no command before it swallows
    text = re.sub(r"\\([A-Za-z]+) ?", lambda found: _SYMBOLS.get(found[1], found[1]), text)
    text = re.sub(r"\{([^{}]*)\}", r"\1", text)
    return text.replace("\t", " ")


def number(value: float) -> str:
    """Three significant digits, with a real minus sign and no exponent between 0.001 and 99,999."""
    if not math.isfinite(value):
        return "nothing finite"
    size = abs(value)
    if size >= 100 and size < 99_999.5:
        words = f"{value:,.0f}"
    elif size == 0 or 1e-3 <= size < 100:
        words = f"{value:.3g}"
    else:
        mantissa, exponent = f"{value:.1e}".split("e")
        words = f"{mantissa} · 10^{int(exponent)}"
    return words.replace("-", "−")


def span(low: float, high: float) -> str:
    """From one number to another, in the least words that tell them apart."""
    one, other = number(low), number(high)
    return one if one == other else f"{one} to {other}"
