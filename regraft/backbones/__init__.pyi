from .catalogue import Backbone as Backbone
from .catalogue import choose_backbone as choose_backbone
from .trunk import Trunk as Trunk
from .trunk import load_trunk as load_trunk
