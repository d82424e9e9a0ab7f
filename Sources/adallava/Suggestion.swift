/// Finds the name that was meant by a mistyped one.
enum Suggestion {
    /// The nearest of `names`: one that continues the word or that it continues, else one with few letters added and removed.
    static func nearest(to word: String, among names: [String]) -> String? {
        func letters(_ name: String) -> String { String(name.drop { $0 == "-" }) }
        let typed = letters(word.lowercased())
        if typed.count < 2 { return nil }
        let most = typed.count < 6 ? 2 : 3
        func continues(_ name: String) -> Bool { name.hasPrefix(typed) || typed.hasPrefix(name) && name.count > 2 }
        return names.map { (name: $0, continues: continues(letters($0)), changes: letters($0).difference(from: typed).count) }
            .filter { $0.continues || $0.changes <= most }
            .min { $0.continues != $1.continues ? $0.continues : $0.changes < $1.changes }?.name
    }
}
