"""HunyuanVideo 1.5: text to video, image to video, step-distilled."""

import functools
import re
from functools import partial

import diffusers

from backbones.families import Case
from tiny import WORDS, _save

WIDTH = 16  # of Qwen's states
# How Qwen splits text into words; when all are known, what frames a prompt is as long as in the checkpoints.
QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def shorten(cls):
    """Fewer places for text and picture in a pipeline: they are padding, and most of the work of a tiny model."""
    build = cls.__init__

    @functools.wraps(build)
    def short(self, *args, **more):
        build(self, *args, **more)
        self.tokenizer_max_length, self.tokenizer_2_max_length, self.vision_num_semantic_tokens = 60, 40, 9

    cls.__init__ = short


for _pipeline in (diffusers.HunyuanVideo15Pipeline, diffusers.HunyuanVideo15ImageToVideoPipeline):
    shorten(_pipeline)


def frame():
    """What the pipeline sets before every prompt."""
    import inspect

    from diffusers import HunyuanVideo15Pipeline

    given = inspect.signature(HunyuanVideo15Pipeline._get_mllm_prompt_embeds).parameters
    return f"system\n{given['system_message'].default}<>\n<>user\n<>assistant\n"


def qwen_tokenizer():
    """Words of the frame and of the tests, split as Qwen splits them, with its chat template."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(QWEN), "isolated")
    texts = [*re.split("<>", frame()), *WORDS, *(f" {word}" for word in WORDS)]
    pieces = [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT,
        model_max_length=8192,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )


def qwen():
    """The words' half of a Qwen 2.5 VL, three layers, of which the states two layers before the end are read."""
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    config = Qwen2_5_VLTextConfig(
        vocab_size=200,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[1, 1, 2]),
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Qwen2_5_VLTextModel(config).eval()


def byt5_tokenizer():
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()


def byt5():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=384, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8, relative_attention_max_distance=16,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def siglip():
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    return SiglipVisionModel(config).eval()


def siglip_processor():
    from transformers import SiglipImageProcessor

    return SiglipImageProcessor(size={"height": 32, "width": 32})


def autoencoder():
    """AutoencoderKLHunyuanVideo15: 16x16x4, of 32 channels in the checkpoints."""
    from diffusers import AutoencoderKLHunyuanVideo15

    return AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1).eval()


def transformer(**more):
    """HunyuanVideo15Transformer3DModel of two blocks, two heads of width 12, for pictures of 48x48 pixels."""
    from diffusers import HunyuanVideo15Transformer3DModel

    return HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=WIDTH,
        text_embed_2_dim=8,
        image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
        target_size=48,
        **more,
    ).eval()


def scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=5.0)


def guider(scale):
    from diffusers import ClassifierFreeGuidance

    return ClassifierFreeGuidance(guidance_scale=scale)


def build(folder, image=False, scale=6.0, **network):
    more = dict(image_encoder=siglip, feature_extractor=siglip_processor) if image else {}
    return _save(
        folder,
        "HunyuanVideo15ImageToVideoPipeline" if image else "HunyuanVideo15Pipeline",
        scheduler,
        tokenizer=qwen_tokenizer,
        text_encoder=qwen,
        tokenizer_2=byt5_tokenizer,
        text_encoder_2=byt5,
        transformer=partial(transformer, task_type="i2v" if image else "t2v", **network),
        vae=autoencoder,
        guider=partial(guider, scale),
        **more,
    )


def _case(scale=6.0, image=False, words=None, **network):
    size = {} if image else dict(height=32, width=48)  # a picture brings its proportions
    call = dict(num_frames=5, num_inference_steps=3, **size, **(words or {}))
    return Case(
        build=partial(build, image=image, scale=scale, **network),
        pipeline="HunyuanVideo15ImageToVideoPipeline" if image else "HunyuanVideo15Pipeline",
        call=call,
        request=call,
        scale=scale,  # the pipeline's is in the folder
        images=1 if image else 0,
        embedding="transformer.x_embedder",
        shift=0.0,  # text tokens are not turned: what counts is not only where video tokens stand to each other
    )


CASES = {
    "hunyuan 1.5 t2v": _case(),
    "hunyuan 1.5 t2v, words in the picture": _case(words=dict(prompt='a ball and "left" in “red”')),
    "hunyuan 1.5 i2v": _case(image=True),
    "hunyuan 1.5 i2v, distilled to few steps": _case(image=True, scale=1.0, use_meanflow=True),
}
