"""HunyuanVideo: text to video, image to video by replaced tokens and by concatenated latents."""

import re
from functools import partial

from backbones.families import Case
from tiny import WORDS, _save

WIDTH = 16  # of Llama's states
# How Llama 3 splits text into words; when all are known, what frames a prompt is as long as in the checkpoints.
LLAMA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ("<pad>", "<|begin_of_text|>", "<|end_of_text|>", "<unk>", "<image>")
TURNS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def template(image):
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video, pipeline_hunyuan_video_image2video

    module = pipeline_hunyuan_video_image2video if image else pipeline_hunyuan_video
    return module.DEFAULT_PROMPT_TEMPLATE


def llama_tokenizer(image):
    """Words of the template and of the tests, split as Llama 3 splits them, with its special tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(LLAMA), "isolated")
    texts = [*re.split(r"<.*?>", template(image)["template"]), *WORDS, *(f" {word}" for word in WORDS)]
    pieces = [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *TURNS, *pieces]))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = split
    words.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", vocabulary["<|begin_of_text|>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", *TURNS],
        model_max_length=8192,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )


def llama_config():
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=200,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def llama():
    """A Llama of three layers, of which the states two layers before the end are read."""
    from transformers import LlamaModel

    return LlamaModel(llama_config()).eval()


def llava():
    """The same with eyes: 336x336 pixels in patches of 14, thus 576 tokens of a picture, as in the checkpoints."""
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    eyes = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=336, patch_size=14
    )
    config = LlavaConfig(
        vision_config=eyes, text_config=llama_config(), image_token_index=SPECIAL.index("<image>"), pad_token_id=0
    )
    return LlavaForConditionalGeneration(config).eval()


def llava_processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})


def clip_tokenizer():
    """CLIP's tokenizer without merges: every letter is a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=514, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def autoencoder():
    """AutoencoderKLHunyuanVideo: 8x8x4, 16 channels."""
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2).eval()


def transformer(in_channels=16, guidance_embeds=True, image_condition_type=None):
    """HunyuanVideoTransformer3DModel of two blocks of two streams and one of one, two heads of width 12."""
    from diffusers import HunyuanVideoTransformer3DModel

    return HunyuanVideoTransformer3DModel(
        in_channels=in_channels,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        guidance_embeds=guidance_embeds,
        text_embed_dim=WIDTH,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
        image_condition_type=image_condition_type,
    ).eval()


def scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=7.0)


def build(folder, image=False, **network):
    more = dict(image_processor=llava_processor) if image else {}
    return _save(
        folder,
        "HunyuanVideoImageToVideoPipeline" if image else "HunyuanVideoPipeline",
        scheduler,
        tokenizer=partial(llama_tokenizer, image),
        text_encoder=llava if image else llama,
        tokenizer_2=clip_tokenizer,
        text_encoder_2=clip,
        transformer=partial(transformer, **network),
        vae=autoencoder,
        **more,
    )


SIZE = dict(height=32, width=48, num_frames=9, num_inference_steps=3)


def _case(told=6.0, scale=1.0, image=False, request=None, **network):
    guidance = dict(guidance_scale=told) | (dict(true_cfg_scale=scale) if scale != 1 else {})
    return Case(
        build=partial(build, image=image, **network),
        pipeline="HunyuanVideoImageToVideoPipeline" if image else "HunyuanVideoPipeline",
        call=SIZE,
        request=dict(SIZE, guidance_scale=told) | (request or {}),
        guidance=guidance,
        scale=scale,
        images=1 if image else 0,
        embedding="transformer.x_embedder",
        shift=0.0,  # text tokens are not turned: what counts is not only where video tokens stand to each other
    )


REPLACED = dict(image=True, image_condition_type="token_replace")
# The pipeline cuts off four frames, kinema counts those that are left.
BESIDE = dict(
    image=True, image_condition_type="latent_concat", in_channels=33, guidance_embeds=False, request=dict(num_frames=5)
)

CASES = {
    "hunyuan t2v": _case(),
    "hunyuan t2v, true guidance too": _case(told=3.5, scale=2.5),
    "hunyuan i2v, tokens replaced": _case(**REPLACED),
    "hunyuan i2v, tokens replaced, true guidance too": _case(told=1.0, scale=3.0, **REPLACED),
    "hunyuan i2v, latents beside": _case(told=1.0, **BESIDE),
    "hunyuan i2v, latents beside, true guidance": _case(told=1.0, scale=4.0, **BESIDE),
}
