"""HTML reports: a folder with images, scores and a viewer that any browser opens from disk."""

from restore.html.folder import check_page_folder, claim_page_folder
from restore.html.rows import Column, PageTable, Row
from restore.html.write import write_page

__all__ = ["Column", "PageTable", "Row", "check_page_folder", "claim_page_folder", "write_page"]
