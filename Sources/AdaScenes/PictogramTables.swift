extension Pictogram {
    static let classicTable: [(category: Category, members: [(name: String, character: Unicode.Scalar)])] = [
        (
            .animal,
            [
                ("cat", "🐱"), ("dog", "🐶"), ("cow", "🐮"), ("pig", "🐷"), ("lion", "🦁"), ("frog", "🐸"), ("monkey", "🐵"), ("bear", "🐻"),
                ("fish", "🐟"), ("bird", "🐦"), ("snail", "🐌"), ("whale", "🐳"), ("turtle", "🐢"), ("bee", "🐝"),
            ]
        ),
        (
            .food,
            [
                ("apple", "🍎"), ("banana", "🍌"), ("lemon", "🍋"), ("grapes", "🍇"), ("carrot", "🥕"), ("pizza", "🍕"), ("bread", "🍞"),
                ("egg", "🥚"), ("cake", "🎂"), ("cherry", "🍒"),
            ]
        ),
        (
            .vehicle,
            [
                ("car", "🚗"), ("bus", "🚌"), ("train", "🚆"), ("plane", "✈"), ("boat", "⛵"), ("bicycle", "🚲"), ("truck", "🚚"),
                ("rocket", "🚀"),
            ]
        ),
        (
            .object,
            [
                ("house", "🏠"), ("tree", "🌳"), ("clock", "🕒"), ("key", "🔑"), ("ball", "⚽"), ("book", "📕"), ("lamp", "💡"),
                ("umbrella", "☂"), ("shoe", "👟"), ("bell", "🔔"), ("phone", "📱"), ("camera", "📷"), ("guitar", "🎸"), ("chair", "🪑"),
            ]
        ),
        (.nature, [("sun", "☀"), ("moon", "🌙"), ("star", "⭐"), ("cloud", "☁"), ("flower", "🌻"), ("fire", "🔥")]),
    ]

    static let furtherTable: [(category: Category, members: [(name: String, character: Unicode.Scalar)])] = [
        (
            .animal,
            [
                ("rabbit", "🐰"), ("horse", "🐴"), ("elephant", "🐘"), ("penguin", "🐧"), ("mouse", "🐭"), ("tiger", "🐯"), ("fox", "🦊"),
                ("panda", "🐼"), ("koala", "🐨"), ("chicken", "🐔"), ("duck", "🦆"), ("owl", "🦉"), ("snake", "🐍"), ("crab", "🦀"),
                ("octopus", "🐙"), ("shark", "🦈"), ("dolphin", "🐬"), ("butterfly", "🦋"), ("spider", "🕷"), ("zebra", "🦓"),
                ("giraffe", "🦒"), ("camel", "🐫"), ("sheep", "🐑"), ("hedgehog", "🦔"),
            ]
        ),
        (
            .food,
            [
                ("strawberry", "🍓"), ("burger", "🍔"), ("pear", "🍐"), ("pineapple", "🍍"), ("watermelon", "🍉"), ("tomato", "🍅"),
                ("potato", "🥔"), ("donut", "🍩"), ("cookie", "🍪"), ("pretzel", "🥨"), ("taco", "🌮"), ("avocado", "🥑"),
                ("mango", "🥭"), ("coconut", "🥥"), ("croissant", "🥐"), ("onion", "🧅"), ("lollipop", "🍭"),
            ]
        ),
        (
            .vehicle,
            [
                ("tractor", "🚜"), ("taxi", "🚕"), ("ambulance", "🚑"), ("helicopter", "🚁"), ("motorcycle", "🏍"), ("scooter", "🛵"),
                ("tram", "🚊"), ("ship", "🚢"), ("canoe", "🛶"), ("skateboard", "🛹"), ("sled", "🛷"), ("firetruck", "🚒"),
            ]
        ),
        (
            .object,
            [
                ("hammer", "🔨"), ("pencil", "✏"), ("envelope", "✉"), ("candle", "🕯"), ("lock", "🔒"), ("magnet", "🧲"),
                ("scissors", "✂"), ("trumpet", "🎺"), ("violin", "🎻"), ("drum", "🥁"), ("hat", "🎩"), ("shirt", "👕"), ("dress", "👗"),
                ("crown", "👑"), ("gift", "🎁"), ("balloon", "🎈"), ("bucket", "🪣"), ("ladder", "🪜"), ("basket", "🧺"), ("spoon", "🥄"),
                ("cup", "☕"), ("bed", "🛏"), ("door", "🚪"), ("laptop", "💻"), ("battery", "🔋"), ("trophy", "🏆"), ("anchor", "⚓"),
                ("watch", "⌚"), ("backpack", "🎒"), ("robot", "🤖"), ("boot", "👢"),
            ]
        ),
        (
            .nature,
            [
                ("cactus", "🌵"), ("mushroom", "🍄"), ("rainbow", "🌈"), ("snowflake", "❄"), ("rose", "🌹"), ("tulip", "🌷"),
                ("volcano", "🌋"), ("tornado", "🌪"), ("clover", "🍀"), ("shell", "🐚"), ("palm", "🌴"), ("snowman", "⛄"), ("planet", "🪐"),
                ("wave", "🌊"),
            ]
        ),
    ]

    static let kinGroups: [Set<String>] = [
        ["bird", "penguin", "chicken", "duck", "owl"], ["fish", "shark", "dolphin"], ["whale", "dolphin", "shark"],
        ["bear", "panda", "koala"], ["cat", "tiger"], ["lion", "tiger"], ["dog", "fox"], ["horse", "zebra"],
        ["bread", "croissant", "pretzel", "burger"], ["cake", "cookie", "donut"], ["pear", "mango"], ["apple", "tomato"],
        ["car", "taxi", "ambulance"], ["truck", "firetruck", "ambulance", "tractor"], ["bus", "tram"], ["train", "tram"],
        ["boat", "ship", "canoe"], ["bicycle", "motorcycle", "scooter"], ["plane", "helicopter"],
        ["clock", "watch"], ["shoe", "boot"], ["guitar", "violin"], ["lamp", "candle"], ["phone", "laptop"], ["ball", "balloon"],
        ["bucket", "basket", "backpack"], ["fire", "candle", "volcano"], ["flower", "rose", "tulip"], ["tree", "palm", "cactus"],
        ["cloud", "tornado"], ["snail", "shell"], ["moon", "planet"], ["star", "snowflake"], ["shirt", "dress"], ["tree", "clover"],
    ]
}
