"""What does the lesson page look like? Pictures of it, for the README.

    python benchmarks/page_pictures.py
    python benchmarks/page_pictures.py --page lesson.html --out benchmarks/pictures

Needs chromium and playwright. Without ``--page``, the page is made first, in under a minute. The
pictures of one page are the same bytes on one machine with the same fonts.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from minicpt.pictures.lesson import page

# file -> section, light or dark, what is pressed first
PICTURES = {
    "bench.png": ("bench", "light", "td.target button >> nth=15"),
    "break_it.png": ("break-it", "dark", "[data-fault=mask-off-by-one]"),
}
SIZE = {"width": 1180, "height": 900}
MOST = 300_000  # bytes of all pictures together


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", metavar="HTML", type=Path, help="what `minicpt lesson` wrote")
    folder = Path(__file__).parent / "pictures"
    parser.add_argument("--out", metavar="DIR", type=Path, default=folder)
    given = parser.parse_args(words)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = given.page or Path(folder) / "lesson.html"
        if not given.page:
            path.write_text(page(), encoding="utf-8")
        draw(path.resolve(), given.out)
    size = sum((given.out / name).stat().st_size for name in PICTURES)
    print(f"{len(PICTURES)} pictures in {given.out}: {size / 1e3:.0f} kB")
    return int(size > MOST)


def draw(path: Path, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (section, scheme, press) in PICTURES.items():
            tab = browser.new_page(viewport=SIZE, color_scheme=scheme)
            tab.goto(path.as_uri())
            tab.click(f"#{section}-tab")
            tab.click(f"#{section} {press}")
            tab.mouse.move(0, 0)
            up = "each => each.scrollIntoView({ behavior: 'instant' })"
            tab.locator(f"#{section}").evaluate(up)
            tab.screenshot(path=out / name)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
