
from simseg.losses.box import low_level
from simseg.plugin import knob, replaces
@replaces('simseg.losses.box.low_level')
def mine(out, batch, ramp, threshold, bottom):
    return low_level(out, batch, ramp, threshold, bottom) | dict(mine=out.logits.sum() * 0 + knob())
