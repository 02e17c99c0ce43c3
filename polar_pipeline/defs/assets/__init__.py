"""The assets, in the order in which posts walk through them: corpus, backbones, decision, evidence."""
