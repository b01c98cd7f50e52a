"""Image classification: all code that is specific to this problem. To adapt it, edit this package.

- `settings`   settings of this task, added to the ones that all tasks share
- `data`       load, check and split the images; `mnist` reads MNIST's files and its sample,
               `folders` finds the images of a folder, `folder_checks` judges them
- `pixels`     read one image file; `images` decodes many
- `contract`   a request's `Item`, its `Prediction` and `GroundTruth`; encode and decode them; the
               server imports it, so it must not need torch
- `model`      the network, our own or a `pretrained` one
- `objective`  loss, augmentation, metrics, and the slices that a new model must not be worse on
- `baseline`   simple models to beat, on the same split
- `figures`    plots for the report
- `inspection` what the command data says about the data, and what train refuses
- `static`     the task's part of the page to try the model

Shared by classifiers: `classes` (predictions and scores), `class_metrics`, `class_inspection`,
`splits` (data checks), `calibration` (temperature), `class_figures` (plots). `interfaces.py` says
what the core calls.
"""
