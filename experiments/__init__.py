"""One run from config to results, a sweep of many runs, and the demo."""
