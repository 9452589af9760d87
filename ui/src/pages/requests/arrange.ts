/* The table as it is drawn: columns that are shown, in the chosen order, and the rows of one page. The program narrows,
 * sorts and cuts its own table; records that the page holds go through the same here. */
import {
  columnOrderingFeature,
  columnVisibilityFeature,
  constructTable,
  createPaginatedRowModel,
  createSortedRowModel,
  rowPaginationFeature,
  rowSortingFeature,
  sortFn_basic,
  tableFeatures,
  type ColumnDef,
} from "@tanstack/table-core";
import { storeReactivityBindings } from "@tanstack/table-core/store-reactivity-bindings";
import { isShown, ordered, type Choice } from "../../lib/ui/columns";
import { COLUMNS, type Column } from "./columns";
import type { Entry } from "./entry";
import type { Sort } from "./filters";

const features = tableFeatures({
  coreReactivityFeature: storeReactivityBindings(),
  columnOrderingFeature,
  columnVisibilityFeature,
  rowSortingFeature,
  rowPaginationFeature,
  sortedRowModel: createSortedRowModel(),
  paginatedRowModel: createPaginatedRowModel(),
});

const definitions: ColumnDef<typeof features, Entry>[] = COLUMNS.map((column) => ({
  id: column.id,
  accessorFn: (one: Entry) => column.value(one) ?? undefined,
  sortFn: sortFn_basic,
  sortUndefined: "last",
}));

export interface View {
  choice: Choice;
  sort: Sort;
  page: number; // from 1
  rows: number;
}

/** `done`: the entries are one page already, as the program cut it. */
export function arrange(data: Entry[], view: View, done: boolean): { columns: Column[]; entries: Entry[] } {
  const table = constructTable({
    features,
    columns: definitions,
    data,
    manualSorting: done,
    manualPagination: done,
    initialState: {
      columnOrder: ordered(COLUMNS, view.choice).map((column) => column.id),
      columnVisibility: Object.fromEntries(COLUMNS.map((column) => [column.id, isShown(column, view.choice)])),
      sorting: [{ id: view.sort.column, desc: view.sort.down }],
      pagination: { pageIndex: done ? 0 : view.page - 1, pageSize: view.rows },
    },
  });
  return {
    columns: table.getVisibleLeafColumns().flatMap(({ id }) => COLUMNS.find((column) => column.id === id) ?? []),
    entries: table.getRowModel().rows.map((row) => row.original),
  };
}
