"""The colours of all pictures: told apart by lightness too, so also by the colour-blind.

Pictures lie on an opaque white card (`files.write_figure`), which dark pages show as it is.
"""

BLUE, ORANGE, GOLD, SKY = "#1f5fa8", "#c2571a", "#c9a227", "#7fa8d1"
BLACK, GREY, PALE, PLUM = "#22252b", "#72777f", "#c8ccd2", "#6b2f5f"
CYCLE = (BLUE, ORANGE, GOLD, SKY, BLACK, GREY, PLUM)  # of lines that are told apart by colour alone
