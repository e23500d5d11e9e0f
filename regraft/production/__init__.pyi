from .gate import Verdict as Verdict
from .gate import judge as judge
from .registry import Change as Change
from .registry import Production as Production
