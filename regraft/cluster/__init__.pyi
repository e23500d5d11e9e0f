from .connection import Cluster as Cluster
from .distribution import Distribution as Distribution
from .handshake import differences as differences
from .handshake import facts_of as facts_of
from .steps import Part as Part
from .steps import Steps as Steps
from .steps import Unprepared as Unprepared
