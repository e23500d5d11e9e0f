from .pages import pages_of as pages_of
from .pages import summary as summary
from .pages import write_html as write_html
from .validation_page import write_validation_page as write_validation_page
