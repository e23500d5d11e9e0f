from .conversion import FORMATS as FORMATS
from .conversion import convert as convert
from .records import Wanted as Wanted
