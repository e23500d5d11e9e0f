from .change_log import Change as Change
from .gate import Verdict as Verdict
from .gate import judge as judge
from .records import Records as Records
from .registry import Production as Production
