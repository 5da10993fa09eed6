#!/usr/bin/env python3
"""Writes attend/viz/no_cairo/font_widths.cc: the advances of DejaVu Sans, by which a build without Cairo measures texts.

    pip install fonttools; python3 scripts/make_font_widths.py /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
"""
import argparse
import pathlib

from fontTools.ttLib import TTFont

# Latin, Greek and Cyrillic with their extensions; punctuation, arrows, mathematics; pictures of controls.
RANGES = [(0x20, 0x24F), (0x370, 0x52F), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2190, 0x22FF), (0x2400, 0x2426)]
HEAD = """// Written by scripts/make_font_widths.py from DejaVu Sans.
#include <attend/viz/no_cairo/font_widths.h>

namespace attend::viz {

// clang-format off
const std::vector<FontWidths>& dejavu_sans_widths() {
    static const std::vector<FontWidths> ranges{
"""
TAIL = """    };
    return ranges;
}
// clang-format on

}  // namespace attend::viz
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", type=pathlib.Path, help="DejaVuSans.ttf")
    font = TTFont(parser.parse_args().font)
    assert font["head"].unitsPerEm == 2048
    glyphs, advances = font.getBestCmap(), font["hmtx"].metrics
    text = HEAD
    for first, last in RANGES:
        widths = [advances[glyphs[c]][0] if c in glyphs else 0xFFFF for c in range(first, last + 1)]
        text += f"        {{{first:#x}, {{\n"
        for begin in range(0, len(widths), 20):
            text += "            " + ", ".join(map(str, widths[begin:begin + 20])) + ",\n"
        text += "        }},\n"
    text += TAIL
    (pathlib.Path(__file__).parent.parent / "attend/viz/no_cairo/font_widths.cc").write_text(text)


if __name__ == "__main__":
    main()
