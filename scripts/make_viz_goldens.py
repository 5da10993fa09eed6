#!/usr/bin/env python3
"""Writes tests/data/viz_geometry.json: where matplotlib puts everything in imshow(weights) with title, labels and colour bar.

    pip install matplotlib; python3 scripts/make_viz_goldens.py

All boxes are in pixels, [left, top, right, bottom], from the top left corner.
"""
import argparse
import json
import pathlib

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy

# rows, columns, width and height in inches, dpi, vmin, vmax
CASES = [
    (7, 7, 6.4, 4.8, 100, 0.0, 1.0),
    (7, 7, 10.0, 10.0, 100, 0.04, 0.31),
    (5, 9, 6.4, 4.8, 100, -2.0, 3.0),
    (30, 12, 6.4, 4.8, 100, 0.1, 0.2),
    (64, 64, 8.0, 6.0, 150, 0.0, 0.015),
    (12, 120, 6.4, 4.8, 100, -0.5, 0.5),
    (9, 9, 4.0, 9.0, 100, 0.0, 250.0),
    (8, 8, 6.4, 4.8, 200, 0.0, 3e-6),
    (8, 8, 6.4, 4.8, 100, 0.0, 4e7),
]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    cases = []
    for rows, columns, width, height, dpi, vmin, vmax in CASES:
        figure = plt.figure(figsize=(width, height), dpi=dpi)
        image = plt.imshow(numpy.linspace(vmin, vmax, rows * columns).reshape(rows, columns), cmap="viridis",
                           vmin=vmin, vmax=vmax)
        plt.title("Attention Weights")
        plt.xlabel("Key positions")
        plt.ylabel("Query positions")
        bar = plt.colorbar(image)
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        total = figure.bbox.height

        def box(artist):
            b = artist.get_window_extent(renderer)
            return [round(v, 3) for v in (b.x0, total - b.y1, b.x1, total - b.y0)]

        def ticks(axis, low, high):
            return [{"value": float(t.get_loc()), "label": t.label1.get_text() or t.label2.get_text(),
                     "box": box(t.label1 if t.label1.get_visible() else t.label2)}
                    for t in axis.get_major_ticks() if low <= t.get_loc() <= high]

        axes = image.axes
        cases.append({
            "rows": rows, "columns": columns, "width": width, "height": height, "dpi": dpi, "vmin": vmin, "vmax": vmax,
            "axes": box(axes), "bar": box(bar.ax), "title": box(axes.title), "x_label": box(axes.xaxis.label),
            "y_label": box(axes.yaxis.label), "x_ticks": ticks(axes.xaxis, -0.5, columns - 0.5),
            "y_ticks": ticks(axes.yaxis, -0.5, rows - 0.5), "bar_ticks": ticks(bar.ax.yaxis, vmin, vmax),
            "bar_offset": bar.ax.yaxis.get_offset_text().get_text(),
            "bar_offset_box": box(bar.ax.yaxis.get_offset_text()),
        })
        plt.close(figure)
    target = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "viz_geometry.json"
    text = json.dumps({"matplotlib": matplotlib.__version__, "cases": cases}, ensure_ascii=False, indent=0)
    target.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
