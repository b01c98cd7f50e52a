"""Forecasting: all code that is specific to this problem. To adapt it, edit this package.

- `settings`   settings of this task, added to the ones that all tasks share
- `data`       the splits: `series` reads series from a `table` and puts them on a `grid` without
               gaps, `windows` splits the time and cuts windows; `inspection` looks at the data
- `frequency`  steps as the calendar has them; `clock`: times, zones, calendar features
- `contract`   encode a request's `Item`, decode its `Prediction` and score it (`items`); the
               server imports it, so it must not need torch; `request_file` reads a CSV file as one
- `model`      the networks, which correct a `ridge` regression
- `objective`  loss, metrics, and the slices that a new model must not be worse on
- `baseline`   simple models to beat, on the same split; `smoothing` is exponential smoothing
- `figures`    plots for the report
- `inspection` what the command data says about the data, and what train refuses
- `static`     the task's part of the page to try the model

`interfaces.py` says what the core calls.
"""
