"""Numbers as text."""


def format_number(value: float) -> str:
    """Format with three decimals; four for numbers below 0.1, fewer from 10 on."""
    size = abs(value)
    if size >= 10:
        return f"{value:,.1f}" if size < 1000 else f"{value:,.0f}"
    return f"{value:.3f}" if size >= 0.1 else f"{value:.1g}" if 0 < size < 0.00005 else f"{value:.4f}"


def format_short(value: float) -> str:
    """Format with four significant digits, with a minus sign in place of the hyphen."""
    return f"{value:.4g}".replace("-", "−")


def format_percent(fraction: float) -> str:
    """Format a fraction as a percentage with three significant digits."""
    return f"{100 * fraction:.3g} %" if fraction < 0.9995 else f"{100 * fraction:.4g} %"


def format_interval(low: float, high: float) -> str:
    """Format the ends of an interval."""
    return f"{format_number(low)} to {format_number(high)}"


def format_duration(seconds: float) -> str:
    """Format seconds as text: ``3.2 s``, ``4 min 05 s``, ``2 h 10 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
