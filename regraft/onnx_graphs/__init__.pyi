from .convert import canonical as canonical
from .convert import chained as chained
from .convert import convert_keras as convert_keras
from .convert import part_of as part_of
from .convert import renamed as renamed
from .convert import with_uint8_input as with_uint8_input
from .int8 import quantised as quantised
