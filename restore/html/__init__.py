"""A folder that shows pictures beside each other with their scores, to be opened in any browser from the disk."""

from restore.html.folder import check_page_folder, claim_page_folder
from restore.html.rows import Column, PageTable, Row
from restore.html.write import write_page

__all__ = ["Column", "PageTable", "Row", "check_page_folder", "claim_page_folder", "write_page"]
