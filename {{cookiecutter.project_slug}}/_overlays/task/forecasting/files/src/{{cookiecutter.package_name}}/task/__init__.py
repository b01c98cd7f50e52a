"""The problem itself: everything that is particular to this project lives in this folder.

- `settings`   the task's own settings, beside the ones that every task shares
- `clock`      times as the steps of a regular grid, and the calendar
- `table`      reads CSV files and says which row is wrong
- `data`       loads, validates and splits by time; a fingerprint says which data it was
- `ridge`      the linear model: a baseline, and what the networks stand on
- `model`      the networks
- `objective`  the loss of a batch, the metrics of a split, the one metric that decides
- `baseline`   the simple models to beat, fitted and measured on the same split
- `smoothing`  one of them: exponential smoothing with two seasons
- `contract`   what a request and an answer look like; imported by the server, so no torch
- `figures`    what a person would look at for this problem

To make the project yours, change these files; the rest follows.
"""
