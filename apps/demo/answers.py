"""The right answers about products and orders, from the shop's facts alone."""

from collections.abc import Sequence

from apps.demo.shop import CATEGORIES, Category, Product, product

ASK_PRODUCT = "Which product do you mean?"
ASK_ORDER = "Of course! Could you tell me your order number, please?"
NOT_OURS = "Sorry, we don't carry that. We sell outdoor clothing, shoes and camping gear."


def listing(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def do(one: Product, singular: str, plural: str) -> str:
    """The verb that fits the number of `one`."""
    return plural if one.plural else singular


def the(one: Product) -> str:
    """`The rain jacket`, to begin a sentence."""
    return f"The {one.name}"


def costs(subject: str, one: Product) -> str:
    """`The rain jacket costs $89`, without a full stop."""
    return f"{subject} {do(one, 'costs', 'cost')} ${one.price}"


def price(one: Product) -> str:
    """What it costs."""
    return f"{costs(the(one), one)}."


def stock(one: Product) -> str:
    """How many are left."""
    if not one.stock:
        return f"Sorry, the {one.name} {do(one, 'is', 'are')} sold out at the moment. New stock arrives every week."
    return f"{the(one)} {do(one, 'is', 'are')} in stock: we have {one.stock} left."


def price_stock(one: Product) -> str:
    """What it costs and how many are left."""
    left = f"we have {one.stock} left in stock"
    gone = f"{do(one, 'it is', 'they are')} sold out at the moment"
    return f"{costs(the(one), one)}, {f'and {left}' if one.stock else f'but {gone}'}."


def colours(one: Product) -> str:
    """Every colour it comes in."""
    return f"{the(one)} {do(one, 'comes', 'come')} in {listing(one.colours)}."


def has_colour(one: Product, colour: str) -> str:
    """Yes, or what there is instead."""
    if colour in one.colours:
        return f"Yes, the {one.name} {do(one, 'comes', 'come')} in {colour}."
    return f"Sorry, the {one.name} {do(one, 'does', 'do')} not come in {colour}, only in {listing(one.colours)}."


def sizes(one: Product) -> str:
    """The range of sizes."""
    return f"{the(one)} {do(one, 'comes', 'come')} in {'sizes ' + one.sizes if one.sizes else 'one size only'}."


def about(one: Product) -> str:
    """What it is like and what it costs."""
    return f"{the(one)} {do(one, 'is', 'are')} {one.about}. {do(one, 'It costs', 'They cost')} ${one.price}."


def waterproof(one: Product) -> str:
    """Yes or no."""
    if one.waterproof:
        return f"Yes, the {one.name} {do(one, 'is', 'are')} waterproof."
    return f"No, the {one.name} {do(one, 'is', 'are')} not waterproof."


def buy(one: Product) -> str:
    """Where to buy it, if there is one."""
    if not one.stock:
        return stock(one)
    return f"Good choice! {costs(the(one), one)}. You can order on our website or buy in the shop."


def compare(one: Product, other: Product) -> str:
    """The two prices; which is better is for the customer to say."""
    return f"{costs(the(one), one)} and {costs(f'the {other.name}', other)}."


def compare_about(one: Product, other: Product) -> str:
    """What both are like: which is warmer or lighter can be read from it."""
    return f"{the(one)} {do(one, 'is', 'are')} {one.about}. {the(other)} {do(other, 'is', 'are')} {other.about}."


def category(kind: Category) -> str:
    """All products of a kind, with prices."""
    members = [product(name) for name in kind.members]
    return f"We have {listing([f'the {one.name} at ${one.price}' for one in members])}."


def category_colours(kind: Category) -> str:
    """The colours of each of a kind."""
    return " ".join(colours(product(name)) for name in kind.members)


def category_colour(kind: Category, colour: str) -> str:
    """Which of a kind there are in `colour`."""
    there = [f"the {name}" for name in kind.members if colour in product(name).colours]
    return f"In {colour} we have {listing(there)}." if there else f"Sorry, we don't have {kind.plurals[0]} in {colour}."


def category_stock(kind: Category) -> str:
    """How many of each of a kind are left."""
    return " ".join(stock(product(name)) for name in kind.members)


def category_sizes(kind: Category) -> str:
    """The sizes, which are the same for all of a kind."""
    same = product(kind.members[0]).sizes
    return f"Our {kind.plurals[0]} come in sizes {same}." if same else f"Each comes in one size only. {category(kind)}"


def category_waterproof(kind: Category) -> str:
    """Which of a kind keep the rain out."""
    dry = [product(name) for name in kind.members if product(name).waterproof]
    if not dry:
        return f"No, our {kind.plurals[0]} are not waterproof."
    verb = "are" if len(dry) > 1 else do(dry[0], "is", "are")
    return f"Yes, {listing([f'the {one.name}' for one in dry])} {verb} waterproof."


ABOUT_CATEGORY = {
    "category": category, "category_colours": category_colours, "category_stock": category_stock,
    "category_sizes": category_sizes, "category_waterproof": category_waterproof,
}  # fmt: skip


def cheaper(one: Product) -> str:
    """All of its kind, or that it is alone."""
    for kind in CATEGORIES:
        if one.name in kind.members:
            return category(kind)
    return f"The {one.name} {do(one, 'is', 'are')} the only {do(one, 'one', 'ones')} of that kind that we have."


def recall_product(one: Product) -> str:
    """What was asked about before."""
    return f"You asked about the {one.name}."


ABOUT_PRODUCT = {
    "price": price, "stock": stock, "colours": colours, "sizes": sizes, "about": about,
    "waterproof": waterproof, "price_stock": price_stock, "buy": buy,
}  # fmt: skip

ABOUT_ORDER = {
    "order_status": "I can't see the live status here, but you can track order {o} under My orders on our website.",
    "order_cancel": "You can cancel order {o} under My orders on our website, as long as it has not been sent.",
    "order_change": "You can change order {o} under My orders on our website, as long as it has not been sent.",
    "order_return": "You can return order {o} within 30 days: print the return label under My orders on our website.",
    "order_problem": "I'm sorry about that! Please write to help@fernhill.example about order {o}, "
    "and we will put it right.",
    "recall_order": "Your order number is {o}.",
}


def order(intent: str, number: str) -> str:
    """What can be said of an order without seeing it: never its state."""
    return ABOUT_ORDER[intent].replace("{o}", number)
