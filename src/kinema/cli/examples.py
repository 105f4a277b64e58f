"""A command for every method, which works as it stands where the files that it names are there."""

from __future__ import annotations

ROLLS = '"a red ball rolls to the left on the grass"'
TWO = '"a red ball rolls to the left on the grass, then a red ball jumps on the grass"'
PLACED = "red ball: 0 0.3 0.5 0.8 @ 0-1.5s; red ball: 0.5 0.3 1 0.8 @ 1.5-3s"

EXAMPLES = {
    "ac3d": f"generate {ROLLS} --camera orbit:40deg --technique ac3d:guidance=3",
    "adaptive_guidance": f"generate {ROLLS} --technique adaptive_guidance:threshold=0.98",
    "anchor_memory": f"generate {TWO} --num-frames 49 --technique anchor_memory --technique gen_l_video",
    "apg": f"generate {ROLLS} --technique apg:scale=6",
    "broadway": f"generate {ROLLS} --model mini-unet --technique broadway:alpha=0.1,beta=10",
    "cfg": f"generate {ROLLS} --technique cfg:scale=6",
    "cfg_cache": f"generate {ROLLS} --technique cfg_cache:every=3 --technique cfg:scale=4",
    "cfg_zero_star": f"generate {ROLLS} --technique cfg_zero_star:scale=4",
    "composed": f"generate {ROLLS} --technique 'composed:prompts=[\"on the snow\"],weights=[-2]'",
    "continuation": f"generate {TWO} --num-frames 65 --technique continuation",
    "controlvideo": 'generate "a blue cube on the snow" --technique controlvideo --technique gen1:source=ball.mp4',
    "diffusion_classifier": 'classify ball.mp4 "a red ball rolls to the left" "a red ball jumps"',
    "ditctrl": f"generate {TWO} --model mini-mm --num-frames 49 --technique ditctrl",
    "ditflow": 'generate "a blue cube on the snow" --technique '
    "'ditflow:reference=ball.mp4,block=5,lr=[0.1,0.05],noise_range=[1.0,0.8]'",
    "ditflow_positions": 'generate "a blue cube on the snow" --technique '
    "'ditflow_positions:reference=ball.mp4,block=5,lr=[0.01,0.005]'",
    "faster_cache": f"generate {ROLLS} --technique faster_cache:every=2",
    "faster_diffusion": f"generate {ROLLS} --model mini-unet --technique faster_diffusion",
    "first_block_cache": f"generate {ROLLS} --technique first_block_cache:threshold=0.1",
    "frame_cfg": "generate --model stabilityai/stable-video-diffusion-img2vid --image ball.png --technique "
    "frame_cfg:last=3",
    "freelong": f"generate {ROLLS} --num-frames 97 --technique freelong",
    "freenoise": f"generate {ROLLS} --num-frames 97 --technique freenoise",
    "gen1": 'generate "a blue cube on the snow" --technique gen1:source=ball.mp4,fidelity=0.5',
    "gen_l_video": f"generate {TWO} --num-frames 49 --technique gen_l_video:stride=4",
    "image_cfg": f"generate {ROLLS} --model zai-org/CogVideoX-5b-I2V --image ball.png --technique "
    "image_cfg:image_scale=1.5",
    "linear_leap": f"generate {ROLLS} --technique linear_leap:at=0.5",
    "livephoto": 'generate "the red ball rolls to the left" --image ball.png --technique livephoto:intensity=8',
    "magcache": f"generate {ROLLS} --technique magcache:threshold=0.12",
    "mint": 'generate "0-1.8s: a red ball rolls to the left | 1.8-3s: the red ball jumps" --technique mint',
    "modality_cfg": f"generate {ROLLS} --model Lightricks/LTX-2 --technique modality_cfg:modality_scale=3",
    "mtvg": f"generate {TWO} --num-frames 49 --technique mtvg",
    "multi_cfg": f"generate {ROLLS} --camera orbit:40deg --technique 'multi_cfg:scale=4,weights=[\"camera:2\"]' "
    "--technique ac3d:guidance=1",
    "pab": f"generate {ROLLS} --technique pab:self_every=2,cross_every=6",
    "pag": f"generate {ROLLS} --technique pag:pag_scale=2",
    "paint_with_words": f"generate {ROLLS} --technique 'paint_with_words:regions={PLACED}'",
    "prompt_schedule": f"generate {TWO} --num-frames 49 --technique prompt_schedule --technique freenoise",
    "randomized_blending": f"generate {ROLLS} --num-frames 97 --technique randomized_blending:overlap=2",
    "sea_cache": f"generate {ROLLS} --technique sea_cache:threshold=0.2",
    "seine": f"generate {ROLLS} --technique seine:first=a.mp4,second=b.mp4,frames=5",
    "slg": f"generate {ROLLS} --technique slg:slg_scale=2",
    "story_diffusion": f"generate {TWO} --num-frames 50 --technique story_diffusion",
    "talc": 'generate "a red ball on the grass" --timeline "0-1.5s: it rolls to the left | 1.5-3s: it jumps" '
    "--technique talc",
    "taylorseer": f"generate {ROLLS} --technique taylorseer:interval=3",
    "token_merging": f"generate {ROLLS} --technique token_merging:until=0.5",
    "vd3d": f"generate {ROLLS} --camera 'pan left, then zoom in' --technique vd3d",
    "vico": 'generate "a red ball and a blue cube on the grass" --technique '
    '\'vico:words=["red ball","blue cube"],lr=0.01\'',
    "video_msg": f"generate {ROLLS} --technique video_msg:sketch=sketch.mp4,level=0.8",
    "vidrd": f"generate {ROLLS} --num-frames 65 --technique vidrd",
    "vstar": f"generate {TWO} --technique vstar",
}


def example(name: str) -> str:
    """A command that uses the method `name`; its defaults, where it is none of kinema's own."""
    return f"kinema {EXAMPLES.get(name, f'generate {ROLLS} --technique {name}')}"
