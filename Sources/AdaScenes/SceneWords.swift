/// Words that scenes can print: capitals only.
enum SceneWords {
    /// The 30 words of Scenes' reference script.
    static let classic = [
        "CAT", "DOG", "SUN", "RED", "BUS", "MAP", "ICE", "TEA", "OWL", "BOX", "STOP", "OPEN", "EXIT", "SALE", "TAXI", "PARK", "HOME",
        "FIRE",
        "SHOP", "CAFE", "GATE", "ROAD", "MILK", "FISH", "BOOK", "HELP", "PUSH", "PULL", "SLOW", "WEST",
    ]

    /// Further short words of three to six letters, in which every letter occurs at every position.
    static let further = [
        "AIR", "ANT", "ARM", "ART", "BAG", "BAR", "BAY", "BED", "BIG", "BIKE", "BIRD", "BLUE", "BOAT", "BONE", "BOWL", "BREAD", "BRIDGE",
        "BROWN", "CAKE", "CALL", "CALM", "CAMP", "CAR", "CARD", "CASH", "CHAIR", "CHEF", "CITY", "CLEAN", "CLOCK", "CLOUD", "CLUB",
        "COAT", "COFFEE", "COLD", "COOK", "CORN", "COW", "CUP", "DAILY", "DANCE", "DAY", "DEER", "DESK", "DOCK", "DOOR", "DOWN", "DRINK",
        "DRIVE", "DRUM", "DRY", "DUCK", "EAR", "EAST", "EASY", "EGG", "EMPTY", "ENTER", "EXTRA", "EYE", "FACE", "FALL", "FARM", "FAST",
        "FILM", "FIVE", "FIX", "FLAG", "FLOOR", "FLY", "FOOD", "FOOT", "FOREST", "FORK", "FOUR", "FOX", "FREE", "FRESH", "FROG", "FRUIT",
        "FULL", "FUN", "GAME", "GARDEN", "GAS", "GIFT", "GIRL", "GLASS", "GOAL", "GOLD", "GOOD", "GRAPE", "GRASS", "GREEN", "GYM", "HAIR",
        "HALL", "HAND", "HAPPY", "HAT", "HEART", "HIGH", "HILL", "HOLD", "HONEY", "HOT", "HOTEL", "HOUR", "HOUSE", "INK", "ISLAND",
        "JACKET", "JAM", "JAZZ", "JOB", "JOIN", "JUICE", "JUMP", "JUNGLE", "KEEP", "KEY", "KID", "KIND", "KING", "KITE", "KIWI", "LAKE",
        "LAMP", "LARGE", "LEFT", "LEMON", "LIFT", "LIGHT", "LION", "LOCK", "LONG", "LOVE", "LOW", "LUNCH", "MAIL", "MANGO", "MARKET",
        "MENU", "METRO", "MIX", "MONEY", "MOON", "MOTOR", "MOVE", "MUSIC", "NAME", "NEST", "NEW", "NEWS", "NICE", "NIGHT", "NINE",
        "NORTH", "NOVA", "NUT", "OAK", "OCEAN", "OFFICE", "OIL", "OLD", "ONE", "ORANGE", "OVEN", "OXEN", "PAGE", "PAINT", "PAPER", "PATH",
        "PEACE", "PEN", "PHONE", "PHOTO", "PIANO", "PINK", "PIZZA", "PLANT", "PLAY", "POOL", "PORT", "POST", "PRICE", "QUEEN", "QUICK",
        "QUIET", "QUIZ", "RADIO", "RAIN", "RICE", "RIDE", "RIGHT", "RING", "RIVER", "ROCK", "ROOF", "ROOM", "ROSE", "SAFE", "SALT",
        "SAND", "SCHOOL", "SEA", "SEAT", "SHIP", "SHOE", "SILVER", "SIX", "SKY", "SNOW", "SOFT", "SONG", "SOUP", "SOUTH", "SPORT", "STAR",
        "START", "STONE", "STORE", "STREET", "SUGAR", "SWIM", "TABLE", "TALL", "TEN", "TENT", "TICKET", "TIME", "TOOL", "TOWN", "TOY",
        "TRAIN", "TREE", "TRUCK", "TWO", "UNIT", "VALLEY", "VAN", "VIDEO", "VIEW", "VOICE", "WAIT", "WALK", "WALL", "WARM", "WATER",
        "WAVE", "WAX", "WHITE", "WIDE", "WILD", "WIND", "WINDOW", "WINE", "WOLF", "WOOD", "WORD", "WORK", "YARD", "YEAR", "YELLOW", "YES",
        "YOGA", "YOUNG", "ZERO", "ZIP", "ZONE", "ZOO",
    ]

    /// Words that a region may name; letter strings are not among them.
    static let known = Set(classic + further)

    /// In six of ten draws a classic word, in three a further one, in one a string of letters that is no word.
    /// - Parameter maxLetters: the longest further word that fits.
    static func pick(_ random: inout SceneRandom, maxLetters: Int) -> String {
        let kind = random.fraction()
        if kind >= 0.9 { return letters(&random) }
        if kind >= 0.6, let word = random.pick(further.filter { $0.count <= maxLetters }) { return word }
        return random.pick(classic) ?? "STOP"
    }

    /// Three to five capitals, consonants and vowels alternating, so that reading is learned letter by letter.
    static func letters(_ random: inout SceneRandom) -> String {
        let consonants = Array("BCDFGHJKLMNPQRSTVWXYZ")
        let vowels = Array("AEIOU")
        var isVowel = random.chance(0.25)
        var text = ""
        for _ in 0..<random.integer(3...5) {
            if let letter = random.pick(isVowel ? vowels : consonants) { text.append(letter) }
            isVowel.toggle()
        }
        return text
    }
}
