"""The same results by the textbook: what one writes first, from the equations. Only to compare with; nothing here is used."""
import numpy as np
import ot
import torch
import torch.nn.functional as F
from simseg.copy_paste import draw
from simseg.core import numpy_rng
from simseg.models.condinst import head_sizes
from skimage.color import rgb2lab


def pairwise(logits, box, image, similar, valid, threshold=.3):
    "BoxInst, Eq. 6, by unfold: log-probabilities of both ends of each of the eight edges of a pixel, as [P,8,h,w]."
    def neighbours(x): # [P,1,h,w] -> [P,8,h,w], 0 outside
        rows = F.unfold(x, 3, dilation=2, padding=2).view(len(x), 9, *x.shape[2:])
        return torch.cat([rows[:, :4], rows[:, 5:]], 1)
    fore, back = F.logsigmoid(logits)[:, None], F.logsigmoid(-logits)[:, None]
    same = torch.logaddexp(fore + neighbours(fore), back + neighbours(back))
    weight = (eight(similar, valid)[image] >= threshold) * box[:, None]
    return -(same * weight).sum() / weight.sum().clamp(min=1)


def eight(lab, valid): # [B,3,h,w], [B,h,w] -> [B,8,h,w] similarity of each pixel to its neighbours; 0 beyond what is valid
    out = []
    h, w = valid.shape[1:]
    padded, there = F.pad(lab, (2, 2, 2, 2)), F.pad(valid.float(), (2, 2, 2, 2))
    for dy in (0, 2, 4):
        for dx in (0, 2, 4):
            if (dy, dx) == (2, 2): continue
            far = (lab - padded[..., dy:dy + h, dx:dx + w]).square().sum(1).sqrt()
            out.append((-.5 * far).exp() * there[:, dy:dy + h, dx:dx + w])
    return torch.stack(out, 1)


def lab(images):
    "CIELAB image by image on the host, by scikit-image."
    return torch.stack([torch.from_numpy(rgb2lab(x.permute(1, 2, 0).cpu().numpy())).permute(2, 0, 1) for x in images]).to(images.device)


def box_masks(boxes, size):
    "Each box filled at the size of the image, then every fourth pixel."
    out = torch.zeros(len(boxes), *size, device=boxes.device)
    for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()): out[k, int(y0):int(y1 + 1), int(x0):int(x1 + 1)] = 1
    return out[:, 2::4, 2::4] > 0


def head_inputs(features, image, points, scale, stride=8): # [P,D+2,h,w]: a copy of its image's features for each object, behind its own coordinates
    h, w = features.shape[2:]
    y, x = torch.meshgrid(torch.arange(h, device=image.device), torch.arange(w, device=image.device), indexing='ij')
    pixels = torch.stack([x, y]).float() * stride + stride // 2
    return torch.cat([(points[:, :, None, None] - pixels) / scale[:, None, None, None], features[image]], 1)


def dynamic_grouped(features, params, image, points, scale, width=8):
    "CondInst's dynamic head as one grouped convolution a layer."
    x, n = head_inputs(features, image, points, scale), len(image)
    (a, b, c), biases = (s for s in head_sizes(features.shape[1], width))
    w1, w2, w3, b1, b2, b3 = params.split((a, b, c, *biases), 1)
    h, w = x.shape[2:]
    x = F.conv2d(x.reshape(1, -1, h, w), w1.reshape(n * width, -1, 1, 1), b1.reshape(-1), groups=n).relu()
    x = F.conv2d(x, w2.reshape(n * width, width, 1, 1), b2.reshape(-1), groups=n).relu()
    return F.conv2d(x, w3.reshape(n, width, 1, 1), b3.reshape(-1), groups=n)[0]


def dynamic_loop(features, params, image, points, scale, width=8):
    "The same, object by object."
    each = [dynamic_grouped(features, params[k:k + 1], image[k:k + 1], points[k:k + 1], scale[k:k + 1], width) for k in range(len(image))]
    return torch.cat(each)


def sinkhorn(scores, label, classes, epsilon=.05, iterations=3):
    "POT, class by class, on the host."
    out = torch.zeros_like(scores)
    for k in range(classes):
        mine = label == k
        s = scores[mine].double().cpu().numpy()
        if len(s): out[mine] = torch.from_numpy(ot.sinkhorn(np.full(len(s), 1 / len(s)), np.full(s.shape[1], 1 / s.shape[1]), -s, epsilon,
                                                            numItermax=iterations, stopThr=0, warn=False)).to(scores)
    return out


@torch.no_grad()
def ema(teacher, student, momentum):
    "Tensor by tensor."
    for t, s in zip(teacher.parameters(), student.parameters()): t.copy_(momentum * t + (1 - momentum) * s)
    for t, s in zip(teacher.buffers(), student.buffers()): t.copy_(s)


def copy_paste(batch, bank, keys):
    "Object by object, with masks as large as the image: (images, boxes of all objects that are left, pasted masks)."
    images, boxes, pasted_masks = batch.images.clone(), [], []
    for i, target in enumerate(batch.targets):
        h, w = target.size
        covered, masks = torch.zeros(h, w, dtype=torch.bool), []
        for piece in draw(bank, numpy_rng(*keys, 'paste', i), target.size):
            pixels, mask = piece.unpack(piece.data, .7)
            whole, colour = torch.zeros(h, w, dtype=torch.bool), torch.zeros(3, h, w, dtype=torch.uint8)
            y, x = piece.corner
            whole[y:y + mask.shape[0], x:x + mask.shape[1]] = mask[:h - y, :w - x]
            colour[:, y:y + mask.shape[0], x:x + mask.shape[1]] = pixels[:, :h - y, :w - x]
            images[i, :, :h, :w] = torch.where(whole, colour, images[i, :, :h, :w])
            masks = [m & ~whole for m in masks] + [whole]
            covered |= whole
        mine = []
        for box in target.boxes.tolist(): # what of its box is still to be seen
            x0, y0, x1, y1 = (round(v) for v in box)
            seen = torch.zeros(h, w, dtype=torch.bool)
            seen[y0:y1, x0:x1] = True
            seen &= ~covered
            if seen.any(): mine.append(bounds(seen))
        boxes.append(torch.tensor(mine + [bounds(m) for m in masks if m.any()]).view(-1, 4))
        pasted_masks += [m for m in masks if m.any()]
    return images, boxes, pasted_masks


def bounds(mask):
    y, x = mask.nonzero(as_tuple=True)
    return [float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)]
