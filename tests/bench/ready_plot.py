"""The figures of tests/bench/ready as a picture: bars of the time until READY, a panel an image, a group a link. SVG, by hand."""

NAMES = {
    "save": ("docker save, copy, load, run", "#8d99ae"),
    "registry": ("docker pull, run", "#b8bfcc"),
    "cold": ("imgfs, cold", "#e07a2f"),
    "profile": ("imgfs, cold, with a profile", "#f2b134"),
    "second": ("imgfs, second start", "#2a9d8f"),
    "sealed": ("imgfs, sealed, build host gone", "#1d6a62"),
}
BAR, GAP, LEFT, HEIGHT, TOP, PANEL = 14, 22, 56, 190, 84, 250
STEPS = (1, 2, 5, 10, 20, 50, 100, 200)


def text(x, y, content, anchor="start", size=11, color="#333"):
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{content}</text>'


def legend(ways, width):
    parts, x, y = [], LEFT, 18
    for way in ways:
        name, color = NAMES[way]
        if x + 24 + 6.4 * len(name) > width:
            x, y = LEFT, y + 18
        parts.append(f'<rect x="{x:g}" y="{y - 9:g}" width="11" height="11" fill="{color}"/>{text(x + 16, y, name)}')
        x += 34 + 6.4 * len(name)
    return parts


def panel(image, links, ways, top, width):
    """One image: seconds on a scale that begins at 0, so that areas compare as the times do."""
    most = max(one["total"]["seconds"] for report in links.values() for way, one in report["ways"].items() if way in ways)
    step = next((one for one in STEPS if most / one <= 6), STEPS[-1])
    limit = (int(most / step) + 1) * step
    base = top + HEIGHT
    parts = [text(LEFT, top - 8, image, size=13)]
    for value in range(0, limit + 1, step):
        y = base - HEIGHT * value / limit
        parts.append(f'<line x1="{LEFT}" x2="{width - 8}" y1="{y:g}" y2="{y:g}" stroke="#ddd"/>{text(LEFT - 6, y + 4, f"{value} s", "end")}')
    x = LEFT + GAP / 2
    for link, report in links.items():
        first = x
        for way in ways:
            if way not in report["ways"]:
                continue
            seconds = report["ways"][way]["total"]["seconds"]
            high = HEIGHT * seconds / limit
            parts.append(f'<rect x="{x:g}" y="{base - high:.1f}" width="{BAR - 2}" height="{high:.1f}" fill="{NAMES[way][1]}"/>')
            parts.append(text(x + BAR / 2 - 1, base - high - 3, f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}", "middle", 8))
            x += BAR
        parts.append(text((first + x) / 2, base + 15, link, "middle"))
        x += GAP
    return parts


def draw(figures, order, ways):
    ways = [way for way in ways if way in NAMES]
    shown = {image: {link: links[link] for link in order if link in links} for image, links in figures.items()}
    groups = max((len(links) for links in shown.values()), default=1)
    width = LEFT + groups * (len(ways) * BAR + GAP) + 16
    parts = legend(ways, width)
    for number, (image, links) in enumerate(shown.items()):
        parts += panel(image, links, ways, TOP + number * PANEL, width)
    height = TOP + len(shown) * PANEL
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
