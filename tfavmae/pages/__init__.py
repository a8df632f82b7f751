"""HTML pages: Jinja2 templates, one stylesheet and their rendering."""
