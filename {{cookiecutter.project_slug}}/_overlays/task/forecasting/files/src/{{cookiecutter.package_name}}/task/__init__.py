"""The problem itself: everything that is particular to this project lives in this folder.

- `settings`   the task's own settings, beside the ones that every task shares
- `clock`      times as the steps of a regular grid, and the calendar
- `table`      reads CSV files and says which row is wrong
- `data`       loads, validates and splits by time, takes labelled requests in (`labelled`); a
               fingerprint says which data it was
- `ridge`      the linear model: a baseline, and what the networks stand on
- `model`      the networks
- `objective`  the loss of a batch, the metrics of a split, the one metric that decides; the named
               parts (`slices`) on which a new model must not be worse
- `baseline`   the simple models to beat, fitted and measured on the same split
- `smoothing`  one of them: exponential smoothing with two seasons
- `contract`   what a request (`Item`), an answer (`Prediction`) and what turned out to be right
               (`Truth`) look like, and what an answer was worth (`score`, `QUALITY`); imported
               by the server, so no torch
- `figures`    what a person would look at for this problem
- `simulate`   requests and what became of them, for the demonstration of the loop

To make the project yours, change these files; the rest follows.
"""
