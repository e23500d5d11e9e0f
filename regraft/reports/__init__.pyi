from .first_screen import Circumstances as Circumstances
from .pages import pages_of as pages_of
from .pages import summary as summary
from .pages import write_html as write_html
from .sources import Sources as Sources
from .sources import sources_of as sources_of
from .validation_page import write_validation_page as write_validation_page
