/// Text with the origin of each range.
///
/// A prompt mixes text of a template with text that people typed. Only the template's own marks may become special tokens, so the origin of
/// every scalar survives concatenation, slicing, replacing and all other operations. Positions count Unicode scalars, as in Python.
struct JinjaText: Sendable {
    /// Where text comes from.
    enum Origin: Sendable, Equatable {
        case template
        case message
        /// The mark of the conversation's image of this number.
        case image(Int)
    }

    /// A stretch of one origin; it begins where the one before it ends.
    struct Run: Sendable, Equatable {
        var end: Int
        var origin: Origin
    }

    private(set) var scalars: [Unicode.Scalar] = []
    private(set) var runs: [Run] = []

    init() {}

    init(_ text: String, _ origin: Origin = .template) {
        self.init(Array(text.unicodeScalars), origin)
    }

    init(_ scalars: [Unicode.Scalar], _ origin: Origin = .template) {
        self.scalars = scalars
        if !scalars.isEmpty { runs = [Run(end: scalars.count, origin: origin)] }
    }

    var count: Int { scalars.count }
    var isEmpty: Bool { scalars.isEmpty }

    var string: String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    /// The stretches in order, as strings.
    var stretches: [(text: String, origin: Origin)] {
        var start = 0
        return runs.map { run in
            var view = String.UnicodeScalarView()
            view.append(contentsOf: scalars[start..<run.end])
            start = run.end
            return (String(view), run.origin)
        }
    }

    mutating func append(_ other: JinjaText) { append(other, 0..<other.count) }

    mutating func append(_ other: JinjaText, _ range: Range<Int>) {
        guard !range.isEmpty else { return }
        let offset = scalars.count - range.lowerBound
        scalars.append(contentsOf: other.scalars[range])
        var index = other.run(at: range.lowerBound)
        while index < other.runs.count {
            let run = other.runs[index]
            extend(to: min(run.end, range.upperBound) + offset, run.origin)
            if run.end >= range.upperBound { break }
            index += 1
        }
    }

    mutating func append(_ scalar: Unicode.Scalar, _ origin: Origin) {
        scalars.append(scalar)
        extend(to: scalars.count, origin)
    }

    mutating func append(_ text: String, _ origin: Origin) {
        guard !text.isEmpty else { return }
        scalars.append(contentsOf: text.unicodeScalars)
        extend(to: scalars.count, origin)
    }

    private mutating func extend(to end: Int, _ origin: Origin) {
        if let last = runs.last, last.origin == origin {
            runs[runs.count - 1].end = end
        } else {
            runs.append(Run(end: end, origin: origin))
        }
    }

    subscript(range: Range<Int>) -> JinjaText {
        if range == 0..<count { return self }
        var text = JinjaText()
        text.append(self, range)
        return text
    }

    func origin(at position: Int) -> Origin {
        let index = run(at: position)
        return index < runs.count ? runs[index].origin : .template
    }

    /// The index of the run that covers `position`.
    private func run(at position: Int) -> Int {
        var (low, high) = (0, runs.count)
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].end > position { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Every scalar replaced by `transform` of it, with the origin of that scalar.
    func mapScalars(_ transform: (_ index: Int, Unicode.Scalar) -> String) -> JinjaText {
        var result = JinjaText()
        result.scalars.reserveCapacity(count)
        var start = 0
        for run in runs {
            for index in start..<run.end { result.scalars.append(contentsOf: transform(index, scalars[index]).unicodeScalars) }
            if result.count > (result.runs.last?.end ?? 0) { result.extend(to: result.count, run.origin) }
            start = run.end
        }
        return result
    }

    /// The first occurrence of `needle` that begins at `start` or later and ends by `end`.
    func find(_ needle: JinjaText, from start: Int = 0, to end: Int? = nil, meter: JinjaMeter) throws -> Int? {
        let last = (end ?? count) - needle.count
        guard start <= last else { return nil }
        guard let first = needle.scalars.first else { return start }
        var compared = 0
        var position = start
        while position <= last {
            compared += 1
            if scalars[position] == first {
                var matched = 1
                while matched < needle.count, scalars[position + matched] == needle.scalars[matched] { matched += 1 }
                if matched == needle.count {
                    try meter.step(compared / 16)
                    return position
                }
                compared += matched
                if compared > 1 << 16 {
                    try meter.step(compared / 16)
                    compared = 0
                }
            }
            position += 1
        }
        try meter.step(compared / 16)
        return nil
    }

    /// The last occurrence of `needle` within `start..<end`.
    func findLast(_ needle: JinjaText, from start: Int = 0, to end: Int? = nil, meter: JinjaMeter) throws -> Int? {
        var position = (end ?? count) - needle.count
        while position >= start {
            try meter.step(1 + needle.count / 16)
            if matches(needle, at: position) { return position }
            position -= 1
        }
        return nil
    }

    func matches(_ needle: JinjaText, at position: Int) -> Bool {
        guard position >= 0, position + needle.count <= count else { return false }
        for index in needle.scalars.indices where scalars[position + index] != needle.scalars[index] { return false }
        return true
    }

    func hasPrefix(_ prefix: JinjaText) -> Bool { matches(prefix, at: 0) }
    func hasSuffix(_ suffix: JinjaText) -> Bool { matches(suffix, at: count - suffix.count) }

    /// The range without scalars at the ends that `isTrimmed` holds for.
    func trimmedRange(left: Bool = true, right: Bool = true, _ isTrimmed: (Unicode.Scalar) -> Bool = JinjaText.isSpace) -> Range<Int> {
        var (start, end) = (0, count)
        if left { while start < end, isTrimmed(scalars[start]) { start += 1 } }
        if right { while end > start, isTrimmed(scalars[end - 1]) { end -= 1 } }
        return start..<end
    }

    /// Python's `str.isspace`.
    static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x20, 0x09...0x0D, 0x1C...0x1F: true
        case 0..<0x80: false
        default: scalar.properties.isWhitespace
        }
    }
}

extension JinjaText: Hashable {
    /// Equal texts can differ in origin.
    static func == (left: JinjaText, right: JinjaText) -> Bool { left.scalars == right.scalars }

    func hash(into hasher: inout Hasher) { hasher.combine(scalars) }
}
