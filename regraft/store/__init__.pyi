from .facts import Facts as Facts
from .facts import open_facts as open_facts
from .leases import store_in_use as store_in_use
from .namespace import Namespace as Namespace
from .namespace import open_namespace as open_namespace
from .shards import Key as Key
from .shards import key_of as key_of
from .uses import record_use as record_use
