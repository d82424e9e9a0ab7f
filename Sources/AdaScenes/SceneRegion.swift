/// A box in a picture and the labels of its content, to train a vision tower before it sees questions.
package struct SceneRegion: Codable, Sendable, Equatable {
    /// Left, top, right and bottom edge in pixels of the picture; right and bottom are exclusive.
    package let box: [Int]
    /// `thing` for every thing (a pictogram's or shape's name, or `word`), `color` for shapes, `word` for printed words, `character` for a
    /// printed letter.
    package let labels: [String: String]

    /// `nil` if the box is outside the picture.
    init?(left: Int, top: Int, right: Int, bottom: Int, pictureSize: Int, labels: [String: String]) {
        func clip(_ position: Int) -> Int { min(max(position, 0), pictureSize) }
        let box = [clip(left), clip(top), clip(right), clip(bottom)]
        guard box[0] < box[2], box[1] < box[3] else { return nil }
        (self.box, self.labels) = (box, labels)
    }
}
