"""Raw data: the release and its checks, posts as tables, folds, shift, and the bundled made-up corpus."""
