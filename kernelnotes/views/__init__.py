"""The only code that imports matplotlib or ipywidgets."""
