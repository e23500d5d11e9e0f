from .conversion import convert as convert
from .formats import FORMATS as FORMATS
from .records import Wanted as Wanted
