/// Rows of one sequence in a step: consecutive slots, through some of the layers. Each of several single rows is computed as if it were alone.
package struct BatchSegment {
    let sequence: TokenSequence
    let role: RowRole
    /// Position of the first row, and its slot in the first of the layers.
    let position: Int, slot: Int
    /// Each row's position, where they do not follow each other or differ by axis.
    var positions: [RowPosition]?
    let layers: Range<Int>
    let input: Input
    /// Destination of the rows' hidden states after the last layer; `nil`: none, so that rows without a reader are not computed to the end.
    var output: Tensor?
    /// Logits that are wanted: of so many of the last rows.
    var logitRows = 0
    /// Raised: the segment is left out from the next layer on.
    var cancellation: Cancellation?
    /// Receives the attention weights of the last row in one of the layers, if attention runs there.
    var watched: (layer: Int, receive: (AttentionWeights) -> Void)?

    package init(
        sequence: TokenSequence, role: RowRole, position: Int, slot: Int, layers: Range<Int>, input: Input, output: Tensor? = nil, logitRows: Int = 0,
        cancellation: Cancellation? = nil
    ) {
        (self.sequence, self.role, self.position, self.slot, self.layers) = (sequence, role, position, slot, layers)
        (self.input, self.output, self.logitRows, self.cancellation) = (input, output, logitRows, cancellation)
    }

    package enum Input {
        case token(Int)
        /// Rows of tokens that follow each other.
        case tokens([Int])
        /// `[rows, hidden]`
        case hidden(Tensor)
    }

    var rows: Int {
        switch input {
        case .token: 1
        case .tokens(let tokens): tokens.count
        case .hidden(let tensor): tensor.rows
        }
    }

    func position(ofRow row: Int) -> Int { positions?[row].time ?? position + row }

    /// The first row's slot in one of the layers: rows that a segment of earlier layers has may be dropped in later ones.
    func slot(in layer: Int) -> Int {
        guard let dropped = sequence.dropped, layers.lowerBound < dropped.layer, layer >= dropped.layer else { return slot }
        return slot - dropped.rows
    }
}
