"""The problem itself: everything that is particular to this project lives in this folder.

- `settings`   the task's own settings, beside the ones that every task shares
- `data`       filters and splits the interactions, takes labelled requests in (`labelled`); a
               fingerprint says which data it was
- `tables`     reads interactions from files: MovieLens, CSV
- `imports`    reads interactions from source files: which modules they import
- `model`      the network
- `objective`  the loss of a batch, the metrics of a split, the one metric that decides; the named
               parts (`slices`) on which a new model must not be worse
- `ranking`    the best items of many scores, and what such lists are worth
- `linear`     item-item models in closed form
- `baseline`   the simple models to beat, fitted and measured on the same split
- `contract`   what a request (`Item`), an answer (`Prediction`) and what turned out to be right
               (`Truth`) look like, and what an answer was worth (`score`, `QUALITY`); imported
               by the server, so no torch
- `figures`    what a person would look at for this problem
- `simulate`   requests and what became of them, for the demonstration of the loop

To make the project yours, change these files; the rest follows.
"""
