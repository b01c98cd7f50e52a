"""Text classification: all code that is specific to this problem. To adapt it, edit this package.

- `settings`   settings of this task, added to the ones that all tasks share
- `data`       load, check, split and tokenize the texts; they come from `docstrings` (installed
               libraries) or `tables` (CSV, JSONL); `texts` holds what both return
- `contract`   a request's `Item`, its `Prediction` and `GroundTruth`; encode and decode them; the
               server imports it, so it must not need torch
- `model`      the network, around our own `encoder` or a `pretrained` one; `masking` is the
               encoder's pre-training, `diagnostics` the extra evaluation
- `objective`  loss, metrics, and the slices that a new model must not be worse on
- `baseline`   simple models to beat, on the same split
- `figures`    plots for the report
- `inspection` what the command data says about the data, and what train refuses
- `static`     the task's part of the page to try the model

Shared by classifiers: `classes` (predictions and scores), `class_metrics`, `class_inspection`,
`splits` (data checks), `calibration` (temperature), `class_figures` (plots). `interfaces.py` says
what the core calls.
"""
