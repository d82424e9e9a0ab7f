/// A scene of level 2: things in the cells of a grid, in one panel or in two that show the same place before and after. No pixels yet.
struct GridScene: Sendable {
    /// A thing in a cell.
    struct Item: Sendable {
        var thing: SceneThing
        /// 0 is the left panel; 1 the right one, where there are two.
        var panel = 0
        var column: Int
        var row: Int
    }

    /// The purpose of a scene; the tasks that it supports follow from it.
    enum Kind: Sendable, CaseIterable {
        /// Different things in most cells.
        case field
        /// Few kinds of things, some of them many times.
        case crowd
        /// All alike but one.
        case oddOne
        /// Two printed words.
        case words
        /// Two or three printed numbers.
        case numbers
        /// Two panels that differ in one thing.
        case panels

        var tasks: [SceneTask] {
            switch self {
            case .field: [.chain1, .chain2, .chain3, .chain4]
            case .crowd: [.count, .compare, .negation]
            case .oddOne: [.odd, .negation]
            case .words: [.read]
            case .numbers: [.sum, .compare]
            case .panels: [.change]
            }
        }

        /// The kinds that support a task.
        static func supporting(_ task: SceneTask) -> [Kind] { allCases.filter { $0.tasks.contains(task) } }
    }

    let kind: Kind
    let background: SceneLayout.Background
    /// Cells of a panel across and down.
    let columns: Int
    let rows: Int
    let panels: Int
    let items: [Item]

    init(kind: Kind, background: SceneLayout.Background, columns: Int = 3, rows: Int = 3, panels: Int = 1, items: [Item]) {
        (self.kind, self.background, self.columns, self.rows, self.panels, self.items) = (kind, background, columns, rows, panels, items)
    }

    var things: [SceneThing] { items.map(\.thing) }

    /// The middle of an item's cell, as a fraction of the picture's side.
    func center(of item: Item) -> (x: Double, y: Double) {
        let width = 1 / Double(panels)
        return ((Double(item.panel) + (Double(item.column) + 0.5) / Double(columns)) * width, (Double(item.row) + 0.5) / Double(rows))
    }

    /// The smaller side of a cell, in pixels of a picture of ``SceneLayout/classicSize``.
    var cellSize: Int { SceneLayout.classicSize / max(columns * panels, rows) }

    /// The item in a cell.
    func item(column: Int, row: Int, panel: Int = 0) -> Int? {
        items.firstIndex { $0.column == column && $0.row == row && $0.panel == panel }
    }

    /// Items of this name in a panel.
    func items(named name: String, panel: Int = 0) -> [Int] {
        items.indices.filter { items[$0].thing.name == name && items[$0].panel == panel }
    }

    /// A step to a neighbouring cell.
    enum Step: CaseIterable, Sendable {
        case left, right, above, below

        /// "What is ___ the dog?"
        var phrase: String {
            switch self {
            case .left: "just left of"
            case .right: "just right of"
            case .above: "just above"
            case .below: "just below"
            }
        }

        var offset: (column: Int, row: Int) {
            switch self {
            case .left: (-1, 0)
            case .right: (1, 0)
            case .above: (0, -1)
            case .below: (0, 1)
            }
        }
    }

    /// The item in the neighbouring cell.
    func neighbour(_ step: Step, of item: Int) -> Int? {
        let origin = items[item]
        return self.item(column: origin.column + step.offset.column, row: origin.row + step.offset.row, panel: origin.panel)
    }
}

extension SceneRenderer {
    /// Where the things of a grid are drawn. Numbers and words are printed as large as their cell allows.
    func place(_ scene: GridScene, _ random: inout SceneRandom) -> [Placed] {
        scene.items.map { item in
            let center = scene.center(of: item), cell = scene.cellSize
            let isWord = item.thing.word != nil
            let print = SceneLayout.Print(
                font: SceneFonts.TextFont.pick(&random), height: (scene.kind == .words ? 20 : 18) + random.integer(0...4),
                isLightOnDark: random.chance(0.05), maxWidth: scene.kind == .words ? SceneLayout.classicSize / scene.columns - 6 : cell)
            // Two panels show the same things at the same places: a shift, or another size, would be a change.
            let isFixed = scene.panels > 1
            let size = isFixed ? cell * 9 / 10 : random.integer(cell * 78 / 100 ... cell * 92 / 100)
            let (shiftX, shiftY) = isFixed ? (0, 0) : (random.integer(-1...1), random.integer(-1...1))
            return place(item.thing, center: center, size: isWord ? cell : size, shiftX: shiftX, shiftY: shiftY, print: print)
        }
    }
}
