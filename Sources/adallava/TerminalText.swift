import AdaLLaVA

/// Text from files and models on its way to a terminal.
enum TerminalText {
    /// The text with everything that a terminal would obey, or that would show a line in another order than it is written, as `\u{1B}`;
    /// bytes of file names that are no UTF-8 as `\xE9`. Line breaks and tabs stay.
    static func shown(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { isHidden($0) || SystemPath.byte($0) != nil }) else { return text }
        var shown = ""
        for scalar in text.unicodeScalars {
            if let byte = SystemPath.byte(scalar) {
                shown += "\\x" + String(byte, radix: 16, uppercase: true)
            } else if isHidden(scalar) {
                shown += "\\u{" + String(scalar.value, radix: 16, uppercase: true) + "}"
            } else {
                shown.unicodeScalars.append(scalar)
            }
        }
        return shown
    }

    /// The same for JSON text, where only strings contain such characters.
    static func shown(json: String) -> String {
        guard json.unicodeScalars.contains(where: isHidden) else { return json }
        var shown = ""
        for scalar in json.unicodeScalars {
            guard isHidden(scalar) else {
                shown.unicodeScalars.append(scalar)
                continue
            }
            let digits = String(scalar.value, radix: 16)
            shown += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }
        return shown
    }

    private static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x09, 0x0A: false
        case 0 ..< 0x20, 0x7F ..< 0xA0: true
        // Marks of direction, and line breaks that are none here.
        case 0x061C, 0x200E, 0x200F, 0x2028 ... 0x202E, 0x2066 ... 0x2069: true
        default: false
        }
    }
}
