"""Recommendation: all code that is specific to this problem. To adapt it, edit this package.

- `settings`   settings of this task, added to the ones that all tasks share
- `data`       load the interactions, from `interactions` (any table), `movielens` or `imports`
               (modules that source files import); `user_splits` filters and splits them
- `contract`   a request's `Item`, its `Prediction` and `GroundTruth`; encode and decode them; the
               server imports it, so it must not need torch
- `model`      the network
- `objective`  loss, metrics, and the slices that a new model must not be worse on; `ranking` has
               the best items of many scores and the metrics of such lists
- `baseline`   simple models to beat, on the same split; `linear` has item-item models
- `figures`    plots for the report
- `inspection` what the command data says about the data, and what train refuses
- `static`     the task's part of the page to try the model

`interfaces.py` says what the core calls.
"""
