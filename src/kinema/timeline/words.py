"""Words by what they do in a sentence, as far as `sentences` asks: closed lists, English, small letters."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a line."""
    return frozenset(text.split())


ONE = words("a an one another each every this that")
SEVERAL = words("two three four five six seven eight nine ten several many few both these those all")
EITHER = words("the his her its their my our your some")
DETERMINERS = ONE | SEVERAL | EITHER
PRONOUNS = {"it": "it", "he": "he", "she": "she", "they": "they"}
PRONOUNS |= {f"{word}{short}": word for word in ("it", "he", "she") for short in ("'s", "’s")}
PRONOUNS |= {"they're": "they", "they’re": "they"}
MEN = words("man boy king prince father dad brother uncle grandfather gentleman guy husband son wizard waiter actor")
WOMEN = words(
    "woman girl queen princess mother mum mom sister aunt grandmother lady wife daughter witch waitress actress"
)
PEOPLE = MEN | WOMEN | words("person child kid baby dancer singer doctor teacher soldier astronaut chef artist someone")
PLURALS = words("people men women children mice feet geese teeth sheep fish deer cattle police")

PREPOSITIONS = words(
    "on in at to from of with by into onto off over under through across along around past towards toward "
    "behind beside between near above below against inside outside up down out for like without during until "
    "after before upon within"
)
JOINING = words("and or but while as that which who whose where when because so if than then")
HELPING = words("is are was were be been has have had can will would could should may might must does do did")
# What may follow a verb, beside a preposition and a noun phrase.
WHITHER = words(
    "left right up down away back off out around round over forward forwards backward backwards high low fast "
    "again together apart here there home upwards downwards sideways closer further slower faster higher lower "
    "too asleep"
)
COPULAS = words("becomes turns gets grows stays looks goes comes keeps starts begins stops changes feels seems")
VERBS = words(
    "roll bounce jump hop leap fall drop slide glide spin rotate turn move go come run walk fly swim dance "
    "stand sit lie stop start grow shrink appear disappear vanish fade explode burn melt float sink rise climb "
    "race chase play sing talk speak smile laugh wave look meet collide crash touch kiss hug fight eat drink "
    "sleep gallop drive sail swing shake break open close shine glow drift travel circle orbit push pull hit "
    "kick throw catch bark wait leave arrive enter begin end become change get keep stay hold lift bow clap cry "
    "land lean nod paint perch pour rest ride row skate ski stretch swirl tumble wander wink write yawn zoom "
    "flap hover crawl cross dive flow follow freeze twirl tilt shift"
)
COLOURS = words("red orange yellow green blue purple pink white black brown grey gray golden silver")
SIZES = words("small little big large huge tiny tall short long old young new matte shiny striped checked")
ADJECTIVES = COLOURS | SIZES
# What ends as a verb does.
NO_VERBS = words("lens series species jeans pants news sports")
# What ends as an adverb does.
NO_ADVERBS = words("family butterfly dragonfly fly belly jelly lily bully")

# Where and when, of which the next event says nothing if it stays there.
PLACES = (
    "grass lawn meadow field fields sand beach desert dune dunes shore snow ice stone rock rocks floor ground "
    "pavement concrete cobblestones wood planks parquet water lake sea ocean river pond pool street road "
    "highway path city town village forest woods jungle park garden yard mountain mountains hill hills valley "
    "canyon cave island swamp kitchen room bedroom bathroom hall hallway corridor office classroom school house "
    "church castle palace restaurant cafe bar shop store market station airport bridge roof rooftop stage "
    "studio gym stadium court playground farm barn factory warehouse library museum hospital laboratory sky "
    "clouds space moon mars underground"
)
TIMES = (
    "night day dawn dusk noon midday midnight sunset sunrise sundown twilight morning evening afternoon dark "
    "darkness daylight daytime moonlight sunlight sunshine light sun rain fog mist storm spring summer autumn "
    "winter snowfall"
)
